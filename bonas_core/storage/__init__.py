"""Where searches are kept: a local folder or S3, through one small interface.

A place in a store is a `pathlib.Path` or an `S3Path`, which has the same names as far as they are needed; whatever
writes or removes goes through the functions here. Files appear whole or not at all, and a search has one writer, on
both.
"""

from bonas_core.storage.disk import Disk, use_disk
from bonas_core.storage.files import (
    Location,
    appearing,
    check_id,
    check_writable,
    local_folder,
    make_folder,
    make_local_folder,
    parse_json,
    read_json,
    read_whole,
    refuse_links,
    remove_file,
    remove_folder,
    remove_unfinished,
    send,
    set_aside,
    store_folder,
    table_bytes,
    write_table,
    write_whole,
)
from bonas_core.storage.s3 import S3Path
from bonas_core.storage.writer import is_locked, single_writer

__all__ = [
    "Disk",
    "Location",
    "S3Path",
    "appearing",
    "check_id",
    "check_writable",
    "is_locked",
    "local_folder",
    "make_folder",
    "make_local_folder",
    "parse_json",
    "read_json",
    "read_whole",
    "refuse_links",
    "remove_file",
    "remove_folder",
    "remove_unfinished",
    "send",
    "set_aside",
    "single_writer",
    "store_folder",
    "table_bytes",
    "use_disk",
    "write_table",
    "write_whole",
]
