//! What a stage of a pipeline takes in time and memory.

use concord_proto::Layers;
use concord_proto::serving::ServingProfile;

use super::cut::StageCut;
use super::{PAGES_MAX, PAGES_MIN};
use crate::planner::PlannerDevice;
use crate::planner::grain::Grain;

/// Latency from one party to the next, with the time that the software takes.
const HOP_SECONDS: f64 = 200e-6;

/// Bytes a second between two workers: 10 Gbit/s.
const LINK_BYTES_PER_SECOND: f64 = 1e9;

/// Bytes that a device reads from its memory while it does one multiply-add. Only products are
/// measured; processors and GPUs alike have about this ratio.
const BYTES_PER_MAC: f64 = 0.25;

/// Rows of a large pass.
const PASS_ROWS: u64 = 512;

/// Workspace of a pass, in hidden states per row: results between two operations, the widest of
/// them several times as wide as a hidden state.
const STATES_PER_ROW: u64 = 32;

/// Tokens of the prompt that is predicted for.
const PROMPT_ROWS: u32 = 512;

/// Answers at once that are predicted for, where pages allow.
const MANY: u32 = 64;

/// Pages of one answer, as predicted.
const PAGES_PER_ANSWER: u32 = 4;

/// Rows of the pass for which stages are balanced: there reading weights and multiplying take about
/// as long.
const TYPICAL_ROWS: u32 = 16;

/// A model and the devices for it.
#[derive(Clone)]
pub(super) struct Costs<'a> {
    pub(super) devices: &'a [PlannerDevice],
    profile: &'a ServingProfile,
    grain: Grain,
    /// What is dealt out: layers, or parts of them.
    pub(super) layers: u32,
    /// Of one of these.
    layer_macs: u64,
    layer_bytes: u64,
    /// Bytes of a token on its way between two stages.
    link_bytes: u64,
}

impl<'a> Costs<'a> {
    pub(super) fn new(
        devices: &'a [PlannerDevice],
        profile: &'a ServingProfile,
        grain: Grain,
    ) -> Self {
        Self {
            devices,
            profile,
            grain,
            layers: grain.units(),
            layer_macs: grain.unit_work(profile.layer_macs),
            layer_bytes: grain.unit_bytes(profile.layer_bytes, profile.cuts.expert_bytes),
            link_bytes: match grain.cuts_layers() {
                true => profile.row_bytes.max(profile.cuts.boundary_bytes),
                false => profile.row_bytes,
            },
        }
    }

    /// The same on other devices.
    pub(super) fn on<'b>(&self, devices: &'b [PlannerDevice]) -> Costs<'b>
    where
        'a: 'b,
    {
        Costs {
            devices,
            ..self.clone()
        }
    }

    /// The stages of a cut.
    pub(super) fn stages(&self, cut: &StageCut) -> Vec<Layers> {
        let runs = crate::planner::runs(&cut.lengths);
        runs.map(|units| self.grain.stage(units)).collect()
    }

    /// Bytes of a stage with `pages` pages.
    pub(super) fn stage_bytes(&self, stage: Layers, pages: u32) -> u64 {
        let profile = self.profile;
        let expert = profile.cuts.expert_bytes;
        let weights = self.grain.stage_bytes(stage, profile.layer_bytes, expert);
        let of_pages = profile.page_layer_bytes.saturating_mul(pages.into());
        let of_pages = of_pages.saturating_mul(stage.attended().len() as u64);
        self.fixed_bytes(stage.start == 0, stage.end == self.grain.layers())
            .saturating_add(weights)
            .saturating_add(of_pages)
    }

    /// Bytes of a stage beside its layers.
    fn fixed_bytes(&self, is_first: bool, is_last: bool) -> u64 {
        let part = |is_there: bool, bytes: u64| if is_there { bytes } else { 0 };
        self.work_bytes()
            .saturating_add(part(is_first, self.profile.embed_bytes))
            .saturating_add(part(is_last, self.profile.head_bytes))
            .saturating_sub(part(is_first && is_last, self.profile.shared_bytes))
    }

    /// Bytes of a large pass, beside weights and pages.
    pub(super) fn work_bytes(&self) -> u64 {
        let states = PASS_ROWS * STATES_PER_ROW;
        self.profile.row_bytes.saturating_mul(states)
    }

    /// Bytes of a layer with its share of `pages` pages.
    fn layer_bytes(&self, pages: u32) -> u64 {
        let of_pages = self.profile.page_layer_bytes.saturating_mul(pages.into());
        self.layer_bytes.saturating_add(of_pages)
    }

    /// Bytes of a stage of so many layers, or parts, with `pages` pages; of parts, at most.
    pub(super) fn bytes(&self, layers: u32, is_first: bool, is_last: bool, pages: u32) -> u64 {
        let layers = self.layer_bytes(pages).saturating_mul(layers.into());
        self.fixed_bytes(is_first, is_last).saturating_add(layers)
    }

    /// Layers of a stage that a device has memory for.
    pub(super) fn layers_in(
        &self,
        device: usize,
        is_first: bool,
        is_last: bool,
        pages: u32,
    ) -> u32 {
        let memory = self.devices[device].memory_bytes;
        let left = memory.saturating_sub(self.fixed_bytes(is_first, is_last));
        let layers = left / self.layer_bytes(pages).max(1);
        layers.min(self.layers.into()) as u32
    }

    /// Pages for which all stages of a cut have room. If no worker stands by, half of the free
    /// memory is kept for layers that its workers may have to take over.
    pub(super) fn pages(&self, cut: &StageCut, asked: u32, is_alone: bool) -> u32 {
        let most = if asked == 0 {
            PAGES_MAX
        } else {
            asked.max(PAGES_MIN)
        };
        let room = |stage: usize| {
            let layers = cut.lengths[stage];
            let weights = self.bytes(layers, stage == 0, stage + 1 == cut.lengths.len(), 0);
            let free = self.devices[cut.devices[stage]]
                .memory_bytes
                .saturating_sub(weights);
            let page = self.profile.page_layer_bytes.saturating_mul(layers.into());
            let of = |bytes: u64| (bytes / page.max(1)).min(most.into()) as u32;
            if asked == 0 && is_alone {
                of(free / 2).max(of(free).min(PAGES_MIN))
            } else {
                of(free)
            }
        };
        (0..cut.lengths.len()).map(room).min().unwrap_or(0)
    }

    /// Seconds of a pass of `rows` rows in a stage: of its products or of reading its weights,
    /// whichever takes longer.
    pub(super) fn stage_seconds(
        &self,
        device: usize,
        layers: u32,
        is_last: bool,
        rows: u32,
    ) -> f64 {
        let profile = self.profile;
        let head = |value: u64| if is_last { value as f64 } else { 0.0 };
        let layers = f64::from(layers);
        let macs = layers * self.layer_macs as f64 + head(profile.head_macs);
        let bytes = layers * self.layer_bytes as f64 + head(profile.head_bytes);
        let speed = self.devices[device].macs_per_second.max(1) as f64;
        (macs * f64::from(rows)).max(bytes / BYTES_PER_MAC) / speed
    }

    /// Seconds of the slowest stage, and of all of them, for a pass of `rows` rows.
    pub(super) fn pace(&self, devices: &[usize], lengths: &[u32], rows: u32) -> (f64, f64) {
        let stages = devices.iter().zip(lengths).enumerate();
        let seconds = stages.map(|(stage, (&device, &layers))| {
            self.stage_seconds(device, layers, stage + 1 == lengths.len(), rows)
        });
        seconds.fold((0.0, 0.0), |(most, sum), time| (time.max(most), sum + time))
    }

    /// The same for a pass of `TYPICAL_ROWS` rows.
    pub(super) fn typical(&self, devices: &[usize], lengths: &[u32]) -> (f64, f64) {
        self.pace(devices, lengths, TYPICAL_ROWS)
    }

    /// The same for one stage.
    pub(super) fn typical_stage(&self, device: usize, layers: u32, is_last: bool) -> f64 {
        self.stage_seconds(device, layers, is_last, TYPICAL_ROWS)
    }

    /// Seconds of a pass from the coordinator through all stages and back.
    fn round_seconds(&self, cut: &StageCut, rows: u32) -> f64 {
        let links = (cut.lengths.len() - 1) as f64;
        let bytes = self.link_bytes as f64 * f64::from(rows);
        let hops = (links + 2.0) * HOP_SECONDS + links * bytes / LINK_BYTES_PER_SECOND;
        self.pace(&cut.devices, &cut.lengths, rows).1 + hops
    }

    pub(super) fn first_token_seconds(&self, cut: &StageCut) -> f64 {
        self.round_seconds(cut, PROMPT_ROWS)
    }

    pub(super) fn tokens_per_second_one(&self, cut: &StageCut) -> f64 {
        1.0 / self.round_seconds(cut, 1)
    }

    /// Answers are spread over as many passes as there are stages.
    pub(super) fn tokens_per_second_many(&self, cut: &StageCut, pages: u32) -> f64 {
        let stages = cut.lengths.len() as u32;
        let answers = (pages / PAGES_PER_ANSWER).clamp(1, MANY);
        let passes = stages.min(answers);
        let rows = answers.div_ceil(passes);
        let slowest = self.pace(&cut.devices, &cut.lengths, rows).0;
        let cycle = (slowest * f64::from(passes)).max(self.round_seconds(cut, rows));
        f64::from(answers) / cycle
    }
}
