"""Tables and figures of the paper, regenerated with error bars: `bonas benchmark NAME`."""
