"""Dispatch of trials to slots, to other processes and to work pools."""
