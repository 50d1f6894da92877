//! Blobs over real sockets.

use super::*;

#[tokio::test]
async fn blobs_come_back_as_they_were_put() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    for len in [0, 1, 1_000, 3 * CHUNK_BYTES + 17] {
        let blob: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let address = put(&mut client, &blob).await.unwrap();
        assert_eq!(address, Digest::of(Domain::Blob, &blob));
        assert_eq!(
            get(&mut client, &address).await.unwrap(),
            blob,
            "{len} bytes"
        );
    }
    let stranger = Digest::of(Domain::Blob, b"never put");
    let missing = get(&mut client, &stranger).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let wanted = vec![stranger, Digest::of(Domain::Blob, b"")];
    let asked = ask(&mut client, &ClientRequest::MissingBlobs(wanted)).await;
    assert_eq!(asked, ClientResponse::MissingBlobs(vec![stranger]));
    let data = vec![0; CHUNK_BYTES + 1];
    let long = tokio_stream::iter([Chunk { data }]);
    assert_eq!(
        client.put_blob(long).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_damaged_blob_is_noticed_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path()).await;
    let mut client = connect(&server).await;
    let address = put(&mut client, b"some bytes").await.unwrap();
    let name = address.to_string();
    let path = folder.path().join("blobs").join(&name[..2]).join(&name);
    std::fs::write(path, b"same bytes").unwrap();
    let damaged = get(&mut client, &address).await.unwrap_err();
    assert_eq!(damaged.code(), Code::DataLoss, "{damaged}");
}
