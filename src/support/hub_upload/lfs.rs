//! Large files: git-lfs's batch API, which names the addresses that their bytes go to.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{BRANCH, HubUpload, PushedFile};

/// The type of git-lfs's messages.
const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// How often a part is sent before its failure counts.
const TRIES: u32 = 3;

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

impl HubUpload {
    /// Sends a file, unless the store has it. Returns its digest.
    pub(super) fn send_large(
        &self,
        repo: &str,
        file: &PushedFile,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<String> {
        let oid = sha256(&file.local)?;
        let url = format!("{}/{repo}.git/info/lfs/objects/batch", self.endpoint);
        let request = self.authorized(self.agent.post(&url));
        let request = request
            .header("Accept", LFS_JSON)
            .header("Content-Type", LFS_JSON);
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
            "objects": [{"oid": oid, "size": file.size}],
            "ref": {"name": format!("refs/heads/{BRANCH}")},
        });
        let response = request.send(body.to_string()).context("git-lfs")?;
        let answer = self.answer(response, "take large files")?;
        let object = &answer["objects"][0];
        if let Some(said) = object["error"]["message"].as_str() {
            bail!("the hub does not take {}: {said}", file.path);
        }
        // Without an action, the store has it.
        if let Some(upload) = object["actions"].get("upload") {
            let sent = self.send(file, &oid, upload);
            sent.with_context(|| format!("cannot send {}", file.path))?;
        }
        if let Some(verify) = object["actions"].get("verify") {
            let said = json!({"oid": oid, "size": file.size});
            self.tell(verify, &said, "confirm that it has the file")?;
        }
        progress(file.size);
        Ok(oid)
    }

    /// Sends a file as a whole, or in the parts that the action names.
    fn send(&self, file: &PushedFile, oid: &str, upload: &Value) -> anyhow::Result<()> {
        let no_header = Map::new();
        let header = upload["header"].as_object().unwrap_or(&no_header);
        let chunk = header.get("chunk_size").and_then(|size| match size {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        let Some(chunk) = chunk.filter(|chunk: &u64| *chunk > 0) else {
            let url = upload["href"]
                .as_str()
                .context("the hub names no address")?;
            return self.put(url, header, file, 0..file.size).map(drop);
        };
        let mut parts: Vec<(u64, &str)> = header
            .iter()
            .filter_map(|(key, url)| Some((key.parse().ok()?, url.as_str()?)))
            .collect();
        parts.sort_unstable();
        if parts.len() as u64 != file.size.div_ceil(chunk) {
            bail!("the hub names {} parts of {chunk} bytes", parts.len());
        }
        let mut done = Vec::new();
        for (index, (number, url)) in (0..).zip(parts) {
            let bytes = index * chunk..file.size.min((index + 1) * chunk);
            let etag = self.put(url, &no_header, file, bytes)?;
            done.push(json!({"partNumber": number, "etag": etag}));
        }
        let said = json!({"oid": oid, "parts": done});
        self.tell(upload, &said, "join the parts")
    }

    /// Sends bytes of a file to an address of the store; the token is not for the store. Returns
    /// the mark that the store gives them.
    fn put(
        &self,
        url: &str,
        header: &Map<String, Value>,
        file: &PushedFile,
        bytes: std::ops::Range<u64>,
    ) -> anyhow::Result<String> {
        let mut last = None;
        for _ in 0..TRIES {
            let mut opened = File::open(&file.local)?;
            opened.seek(SeekFrom::Start(bytes.start))?;
            let length = bytes.end - bytes.start;
            let mut part = opened.take(length);
            let mut request = self
                .agent
                .put(url)
                .header("Content-Length", length.to_string());
            for (key, value) in header {
                if let Some(value) = value.as_str() {
                    request = request.header(key, value);
                }
            }
            match request.send(ureq::SendBody::from_reader(&mut part)) {
                Ok(response) if response.status().is_success() => {
                    let etag = response.headers().get("etag");
                    let etag = etag.and_then(|etag| etag.to_str().ok());
                    return Ok(etag.unwrap_or_default().to_string());
                }
                Ok(response) if !response.status().is_server_error() => {
                    bail!("the store answers {}", response.status());
                }
                Ok(response) => last = Some(format!("the store answers {}", response.status())),
                Err(error) => last = Some(error.to_string()),
            }
        }
        bail!("{} ({TRIES} tries)", last.unwrap_or_default())
    }

    /// Posts to the address of an action. The token goes to the hub alone.
    fn tell(&self, action: &Value, body: &Value, what: &str) -> anyhow::Result<()> {
        let url = action["href"]
            .as_str()
            .context("the hub names no address")?;
        let mut request = self.agent.post(url);
        if url.starts_with(&format!("{}/", self.endpoint)) {
            request = self.authorized(request);
        }
        let request = request
            .header("Accept", LFS_JSON)
            .header("Content-Type", LFS_JSON);
        let response = request.send(body.to_string()).context("git-lfs")?;
        self.answer(response, what).map(drop)
    }
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE]);
    loop {
        let count = file.read(&mut piece).with_context(cannot)?;
        if count == 0 {
            let digest = hasher.finalize();
            return Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hasher.update(&piece[..count]);
    }
}
