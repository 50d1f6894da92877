//! Bytes of strangers at the ports of a coordinator and of workers do not disturb a job.

mod pool;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use concord_proto::address::Address;
use concord_proto::wire::coordinator_client::CoordinatorClient;
use concord_proto::wire::worker_client::WorkerClient;
use concord_proto::wire::{BlobAddress, Body, Chunk, Envelope, Frame};
use concord_proto::{Keypair, link};
use pool::{Pool, outcome, run, shared, small_job};
use tonic::Code;
use tonic::transport::Channel;

const STEPS: u32 = 80;

/// Bytes of a counter that goes through a mixer: the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| byte()).collect()
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let head = [len[1], len[2], len[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// The opening of an HTTP/2 connection and the headers of a gRPC call.
fn grpc_call(path: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "pool"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.extend([0, name.len() as u8]);
        headers.extend(name.bytes());
        headers.push(value.len() as u8);
        headers.extend(value.bytes());
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [
        &preface[..],
        &frame(4, 0, 0, &[]),
        &frame(1, 4, 1, &headers),
    ]
    .concat()
}

/// What strangers send.
fn attacks(seed: u64, service: &str) -> Vec<Vec<u8>> {
    let call = |method: &str| grpc_call(&format!("/concord.v1.{service}/{method}"));
    let methods: &[&str] = match service {
        "Coordinator" => &["Session", "Call", "Watch", "GetBlob", "PutBlob", "Nothing"],
        _ => &["Push", "Open", "GetBlob", "Nothing"],
    };
    let mut all = vec![
        noise(seed, 4_096),
        b"GET / HTTP/1.1\r\nHost: pool\r\n\r\n".to_vec(),
        [
            &b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"[..],
            &noise(seed, 99),
        ]
        .concat(),
        b"PRI * HTTP/2.0\r\n".to_vec(),
        [&grpc_call("/")[..], &noise(seed + 1, 2_048)].concat(),
        // A frame longer than anybody takes, and one that never comes.
        [
            &call(methods[0])[..],
            &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
            &noise(seed, 512),
        ]
        .concat(),
        [&call(methods[0])[..], &frame(1, 0, 3, &noise(seed, 64))].concat(),
    ];
    for method in methods {
        let body = |bytes: &[u8]| [&call(method)[..], &frame(0, 0, 1, bytes)].concat();
        // A message of 4 GB, of which little comes; one cut off; one that is compressed noise.
        all.push(body(
            &[&[0, 0xff, 0xff, 0xff, 0xff][..], &noise(seed, 1_000)].concat(),
        ));
        all.push(body(&[0, 0, 0, 0, 200, 10, 5, 1]));
        all.push(body(&[&[1, 0, 0, 0, 50][..], &noise(seed, 50)].concat()));
        // A field that says that it has 2^31 bytes.
        all.push(body(&[0, 0, 0, 0, 6, 10, 0xff, 0xff, 0xff, 0xff, 7]));
        all.push(body(
            &[&[0, 0, 0, 3, 0xe8][..], &noise(seed + 2, 1_000)].concat(),
        ));
    }
    all
}

fn throw(address: &str, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address) else {
        panic!("nobody listens at {address} any more");
    };
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    // It may hang up at any byte.
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 4_096]);
}

/// Calls that are gRPC and carry nonsense. The codes that came back.
async fn nonsense_for_coordinator(url: String, seed: u64) -> Vec<Code> {
    let mut client = CoordinatorClient::new(link_to(&url).await);
    let bytes = noise(seed, 300);
    let envelope = Envelope {
        signer: noise(seed, 32),
        body: bytes.clone(),
        signature: noise(seed + 1, 64),
    };
    let body = || Body {
        bytes: bytes.clone(),
    };
    let address = || BlobAddress {
        digest: bytes.clone(),
    };
    let chunk = Chunk {
        data: noise(seed, 2 << 20),
    };
    let session = client.session(tokio_stream::iter([envelope])).await;
    let session = match session {
        Ok(answer) => until_error(answer.into_inner()).await,
        Err(status) => status.code(),
    };
    vec![
        session,
        client.call(body()).await.unwrap_err().code(),
        client.watch(body()).await.unwrap_err().code(),
        client.get_blob(address()).await.unwrap_err().code(),
        client
            .put_blob(tokio_stream::iter([chunk]))
            .await
            .unwrap_err()
            .code(),
    ]
}

/// A link to whoever is at an address of this machine, for a key that nobody knows.
async fn link_to(url: &str) -> Channel {
    let address = Address::parse(url).unwrap();
    let key = Keypair::from_secret([251; 32]);
    link::connect(&address, &key).await.unwrap()
}

/// What a session ends with; `Ok` where it just ends.
async fn until_error(mut stream: tonic::Streaming<Envelope>) -> Code {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

async fn nonsense_for_worker(url: String, seed: u64) -> Vec<Code> {
    let mut client = WorkerClient::new(link_to(&url).await);
    let bytes = noise(seed, 300);
    let frames = [
        Frame {
            header: bytes.clone(),
            data: bytes.clone(),
        },
        Frame {
            header: Vec::new(),
            data: bytes.clone(),
        },
    ];
    let [first, second] = frames;
    vec![
        client
            .push(tokio_stream::iter([first]))
            .await
            .unwrap_err()
            .code(),
        client
            .push(tokio_stream::iter([second]))
            .await
            .unwrap_err()
            .code(),
        client
            .open(Body {
                bytes: bytes.clone(),
            })
            .await
            .unwrap_err()
            .code(),
        client
            .get_blob(BlobAddress { digest: bytes })
            .await
            .unwrap_err()
            .code(),
        client
            .get_blob(BlobAddress {
                digest: noise(seed, 32),
            })
            .await
            .unwrap_err()
            .code(),
    ]
}

/// Throws everything at a port again and again until told to stop.
fn besiege(address: &str, service: &str, stop: &AtomicBool, thrown: &AtomicUsize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Connections that are opened and left alone.
    let idle: Vec<_> = (0..50).map(|_| TcpStream::connect(address)).collect();
    let mut seed = 0;
    while !stop.load(Ordering::Relaxed) {
        for bytes in attacks(seed, service) {
            throw(address, &bytes);
            thrown.fetch_add(1, Ordering::Relaxed);
        }
        let url = format!("concord://{address}");
        let codes = match service {
            "Coordinator" => runtime.block_on(nonsense_for_coordinator(url, seed)),
            _ => runtime.block_on(nonsense_for_worker(url, seed)),
        };
        // Refused, and not by a panic in mid-call.
        let panics = [Code::Unknown, Code::Cancelled, Code::Unavailable];
        assert!(
            !codes.iter().any(|code| panics.contains(code)),
            "{service}: {codes:?}"
        );
        seed += 17;
    }
    drop(idle);
}

#[test]
fn strangers_do_not_disturb_a_job() {
    let Some(shared) = shared() else { return };
    let quiet = {
        let mut pool = Pool::new();
        pool.join("worker", &["--threads", "1"]);
        let job = small_job(pool.dir.path(), &shared, STEPS, 9, "");
        outcome(&pool.train(&job, &[])).hash()
    };
    let mut pool = Pool::new();
    let mut besieged = vec![(pool.address(), "Coordinator")];
    for _ in 0..2 {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        pool.join("worker", &["--threads", "1", "--listen", &free]);
        besieged.push((free, "Worker"));
    }
    pool.join("checker", &["--threads", "1"]);
    let job = small_job(pool.dir.path(), &shared, STEPS, 9, "");
    let options = ["--plan", "2x1", "--min-workers", "2", "--min-checkers", "1"];
    let train = pool.train(&job, &options);
    train.until(|object| object["event"] == "step");
    let (stop, thrown) = (AtomicBool::new(false), AtomicUsize::new(0));
    let done = std::thread::scope(|scope| {
        for (address, service) in &besieged {
            scope.spawn(|| besiege(address, service, &stop, &thrown));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| outcome(&train)));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|why| std::panic::resume_unwind(why))
    });
    let thrown = thrown.into_inner();
    println!("{thrown} attacks in {:.1} s", done.seconds);
    assert!(thrown > 50, "only {thrown} attacks: the job was too short");
    assert_eq!(done.hash(), quiet);
    assert_eq!(done.convictions, []);
    assert_eq!(
        done.count("lost") + done.count("voided"),
        0,
        "{:?}",
        done.events
    );
    assert_eq!(done.result["inconclusive"], 0);
    let status = run(&["status", "--coordinator", &pool.url, "--json"]);
    assert_eq!(status.code, Some(0), "{status:?}");
}
