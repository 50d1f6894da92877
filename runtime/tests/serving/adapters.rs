//! Adapters: in one pass with the bare model, added and dropped while it serves.

use std::collections::BTreeMap;

use concord_kernels::rng::Philox;
use concord_kernels::{Device, Tensor};
use concord_models::config::Projection;
use concord_models::decoder::{LoraSpec, Stage, StageOptions};
use concord_models::generate::Generator;
use concord_models::peft::Adapter;
use concord_proto::manifest::ModelTensor;
use concord_proto::serving::{AdapterManifest, AnswerVerdict, FromStage, SampleOrder, ToStage};
use concord_proto::{Digest, canonical};
use concord_runtime::serving::judge::JudgedAdapter;
use concord_runtime::tensor_blob;

use crate::bits::{alone, prompt};
use crate::case::{claims, receipt, verdict, verdict_with};
use crate::model::{ServedModel, served};
use crate::pool::{Asked, Pipeline, Pool, Step, Wanted, sampling, soon};

/// An adapter whose blobs are in the store.
fn adapter(model: &mut ServedModel) -> (Digest, AdapterManifest, BTreeMap<String, Tensor>) {
    let lora = LoraSpec::uniform(4, 2.0, [Projection::Q, Projection::Up]);
    let noise = Philox::new(17, 0);
    let mut drawn = 0;
    let mut tensors = BTreeMap::new();
    for (name, shape) in Adapter::shapes(model.folder.config(), &lora) {
        let count = shape[0] * shape[1];
        let values: Vec<f32> = (drawn..drawn + count as u64)
            .map(|i| noise.unit(i) - 0.5)
            .collect();
        drawn += count as u64;
        tensors.insert(name, Tensor::new(&shape, values).unwrap());
    }
    let blobs = &mut model.blobs;
    let blob = |(name, tensor): (&String, &Tensor)| {
        let bytes = tensor_blob::encode(tensor).unwrap();
        ModelTensor {
            name: name.clone(),
            bytes: bytes.len() as u64,
            blob: blobs.put(bytes),
        }
    };
    let manifest = AdapterManifest {
        lora: concord_runtime::spec::updates(&lora, model.folder.config()),
        tensors: tensors.iter().map(blob).collect(),
    };
    let digest = blobs.put(canonical::encode(&manifest));
    (digest, manifest, tensors)
}

/// The greedy answer of the model with an adapter.
fn adapted(model: &ServedModel, tensors: &BTreeMap<String, Tensor>, prompt: &[u32]) -> Vec<u32> {
    let bare = model.whole(&Device::cpu(1)).options().clone();
    let options = StageOptions {
        lora: Some(LoraSpec::uniform(4, 2.0, [Projection::Q, Projection::Up])),
        ..bare
    };
    let stage = Stage::load(options, &model.folder, tensors).unwrap();
    let sampling = concord_kernels::ops::sample::Sampling {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
    };
    let mut generator = Generator::new(&stage, sampling).unwrap();
    let mut answer = vec![generator.next(prompt).unwrap()];
    while answer.len() < 20 {
        let last = answer[answer.len() - 1];
        answer.push(generator.next(&[last]).unwrap());
    }
    answer
}

async fn say(pipeline: &mut Pipeline, message: ToStage) -> Vec<Result<(), String>> {
    let mut outcomes = Vec::new();
    for stream in &mut pipeline.streams {
        stream.send(&message);
        loop {
            match soon(stream.from.recv()).await.unwrap() {
                FromStage::Adapter { outcome, .. } => break outcomes.push(outcome),
                FromStage::Passed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_is_on_top_of_those_sequences_that_name_it() {
    let Some(mut model) = served("tinystories-260k") else {
        return;
    };
    let (digest, manifest, tensors) = adapter(&mut model);
    let prompt = prompt(12, model.deployment.vocab);
    let with = adapted(&model, &tensors, &prompt);
    let without = alone(&model, &prompt, &sampling(None), 20);
    assert_ne!(with, without, "the adapter changes something");

    let mut pool = Pool::start(&model, &[None, None]).await;
    let mut pipeline = pool.serve(&pool.assignment(&model, &[2], 1)).await;
    let outcomes = say(&mut pipeline, ToStage::AddAdapter(digest)).await;
    assert_eq!(outcomes, [Ok(()), Ok(())]);
    let missing = say(&mut pipeline, ToStage::AddAdapter(Digest([1; 32]))).await;
    assert!(missing.iter().all(Result::is_err), "{missing:?}");

    // Both in one pass.
    let step = |sequence: u64, pages, adapter| Step {
        sequence,
        first: 0,
        tokens: &prompt,
        pages,
        adapter,
        sample: Some(SampleOrder::new(&sampling(None), &[], None)),
        wanted: Wanted::default(),
    };
    let drawn = pipeline
        .pass(&[step(1, &[1], Some(digest)), step(2, &[2], None)])
        .await;
    assert_eq!(drawn, [with[0], without[0]]);

    let mut asked = Asked::new(3, &prompt, &sampling(None));
    asked.adapter = Some(digest);
    let answer = pipeline.answer(&asked).await;
    assert_eq!(answer, with);
    let claims = claims(&model, &mut pipeline, &asked, &answer).await;
    let receipt = receipt(&model, &asked, &answer, claims);
    let judged = JudgedAdapter::new(&manifest, tensors).unwrap();
    let verdict_with = verdict_with(&model, &receipt, Some(&judged));
    assert_eq!(verdict_with, AnswerVerdict::Agrees);
    let unclear = verdict(&model, &receipt);
    assert!(
        matches!(unclear, AnswerVerdict::Inconclusive { .. }),
        "{unclear:?}"
    );

    // The next assignment has it from the start.
    let mut assignment = pool.assignment(&model, &[3], 2);
    assignment.adapters = vec![digest];
    let mut pipeline = pool.serve(&assignment).await;
    assert_eq!(pipeline.answer(&asked).await, with);
}
