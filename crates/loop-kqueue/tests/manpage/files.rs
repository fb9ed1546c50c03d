//! Regular files: reading and writing, and `EVFILT_VNODE`.

use super::*;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("kevent-{}-{name}", std::process::id()))
}

fn appending(path: &PathBuf) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

#[test]
fn a_file_is_readable_while_its_position_is_not_its_end() {
    let q = Queue::open().unwrap();
    let name = path("reading");
    fs::write(&name, b"12345").unwrap();
    let mut f = File::open(&name).unwrap();
    f.seek(SeekFrom::Start(2)).unwrap();
    change(&q, of(&f, EVFILT_READ, EV_ADD));
    assert_eq!(one(&q).data, 3);
    f.seek(SeekFrom::End(0)).unwrap();
    none(&q);
    appending(&name).write_all(b"67").unwrap();
    assert_eq!(one(&q).data, 2);
    fs::remove_file(&name).unwrap();
}

#[test]
fn vnode_events_tell_what_happened_to_a_file() {
    let q = Queue::open().unwrap();
    let (name, moved, link) = (path("vnode"), path("vnode-moved"), path("vnode-link"));
    fs::write(&name, b"1").unwrap();
    let f = File::open(&name).unwrap();
    let all = NOTE_DELETE | NOTE_WRITE | NOTE_EXTEND | NOTE_ATTRIB | NOTE_LINK | NOTE_RENAME;
    change(&q, of(&f, EVFILT_VNODE, EV_ADD | EV_CLEAR).notes(all));
    none(&q);
    appending(&name).write_all(b"2").unwrap();
    let grown = NOTE_WRITE | NOTE_EXTEND;
    assert_eq!(one(&q).fflags & grown, grown);
    none(&q);
    let mode = fs::metadata(&name).unwrap().permissions();
    fs::set_permissions(&name, mode).unwrap();
    assert_eq!(one(&q).fflags, NOTE_ATTRIB);
    fs::hard_link(&name, &link).unwrap();
    assert_eq!(one(&q).fflags & NOTE_LINK, NOTE_LINK);
    fs::rename(&name, &moved).unwrap();
    assert_eq!(one(&q).fflags & NOTE_RENAME, NOTE_RENAME);
    fs::remove_file(&link).unwrap();
    assert_eq!(one(&q).fflags & NOTE_LINK, NOTE_LINK);
    fs::remove_file(&moved).unwrap();
    assert_eq!(one(&q).fflags & NOTE_DELETE, NOTE_DELETE);
}

#[test]
fn vnode_events_not_asked_for_are_not_told() {
    let q = Queue::open().unwrap();
    let name = path("vnode-quiet");
    fs::write(&name, b"1").unwrap();
    let f = File::open(&name).unwrap();
    let change_of = of(&f, EVFILT_VNODE, EV_ADD | EV_CLEAR).notes(NOTE_DELETE);
    change(&q, change_of);
    fs::write(&name, b"22").unwrap();
    none(&q);
    fs::remove_file(&name).unwrap();
    assert_eq!(one(&q).fflags, NOTE_DELETE);
}

#[test]
fn a_directory_is_written_to_when_a_file_comes_and_goes() {
    let q = Queue::open().unwrap();
    let name = path("directory");
    fs::create_dir(&name).unwrap();
    let d = File::open(&name).unwrap();
    change(
        &q,
        of(&d, EVFILT_VNODE, EV_ADD | EV_CLEAR).notes(NOTE_WRITE),
    );
    let inside = name.join("file");
    fs::write(&inside, b"").unwrap();
    assert_eq!(one(&q).fflags, NOTE_WRITE);
    fs::remove_file(&inside).unwrap();
    assert_eq!(one(&q).fflags, NOTE_WRITE);
    fs::remove_dir(&name).unwrap();
}
