//! Blobs of a store that are read by other processes of the machine.

use std::io::Read;
use std::path::Path;

use concord_proto::blob_store::{BlobLink, blob_file, link_file};
use concord_proto::{Digest, Domain, canonical};

/// A folder of its own, which is removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("concord-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn keep(folder: &Path, address: &Digest, link: &BlobLink) {
    let path = folder.join(link_file(address));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, canonical::encode(link)).unwrap();
}

#[test]
fn a_link_gives_the_bytes_of_its_file_until_that_is_another() {
    let folder = Folder::new("link");
    let file = folder.0.join("model");
    std::fs::write(&file, b"0123456789").unwrap();
    let link = BlobLink::new(b"head".to_vec(), &file, 2, 3).unwrap();
    let address = Digest::of(Domain::Blob, b"head234");
    assert_eq!(BlobLink::find(&folder.0, &address), None);
    keep(&folder.0, &address, &link);
    let found = BlobLink::find(&folder.0, &address).unwrap();
    assert_eq!(found, link);
    let mut bytes = Vec::new();
    found.open().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(Digest::of(Domain::Blob, &bytes), address);

    let changed = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    let opened = std::fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(changed).unwrap();
    assert_eq!(BlobLink::find(&folder.0, &address), None, "another file");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(BlobLink::find(&folder.0, &address), None, "no file");
}

#[test]
fn there_is_no_link_to_what_is_not_there() {
    let folder = Folder::new("no-link");
    let file = folder.0.join("model");
    std::fs::write(&file, b"0123456789").unwrap();
    for (offset, bytes) in [(8, 3), (11, 0), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(BlobLink::new(Vec::new(), &file, offset, bytes), None);
    }
    assert!(BlobLink::new(Vec::new(), &file, 8, 2).is_some());
    assert_eq!(BlobLink::new(Vec::new(), &folder.0, 0, 0), None);
    let garbage = folder.0.join(link_file(&Digest([7; 32])));
    std::fs::create_dir_all(garbage.parent().unwrap()).unwrap();
    std::fs::write(garbage, b"garbage").unwrap();
    assert_eq!(BlobLink::find(&folder.0, &Digest([7; 32])), None);
}

#[test]
fn a_blob_lies_in_one_of_256_folders() {
    let address = Digest([0xab; 32]);
    assert_eq!(blob_file(&address), format!("ab/{address}"));
}
