//! The emulated GPU on test kernels of its own: `kernels/emulator/selftest.cu`.

use super::*;
use crate::gpu::{Slice, arguments};

const fn kernel(name: &'static str) -> Kernel {
    Kernel {
        module: "selftest",
        name,
    }
}

fn gpu(turns: Turns) -> Cuda {
    Cuda::emulated(EmulatorOptions {
        turns,
        ..EmulatorOptions::default()
    })
}

const ALL_TURNS: [Turns; 4] = [
    Turns::Forward,
    Turns::Reverse,
    Turns::Shuffled(1),
    Turns::Shuffled(2),
];

/// The error's text, which must hold each of `words`.
fn assert_refused(result: Result<(), CudaError>, words: &[&str]) {
    let text = result.expect_err("it is refused").to_string();
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[test]
fn a_barrier_orders_writes_before_reads() {
    for turns in ALL_TURNS {
        let cuda = gpu(turns);
        let values: Vec<u32> = (0..3 * 200).collect();
        let input = cuda.upload(&values).expect("room");
        let output = cuda.alloc::<u32>(values.len()).expect("room");
        let grid = Grid::new(3, 200).shared(4 * 200);
        let launched = cuda.start(
            kernel("selftest_mirror"),
            grid,
            arguments![&input, &output, 1u32],
        );
        launched.expect("it runs");
        let mirrored: Vec<u32> = values
            .chunks(200)
            .flat_map(|b| b.iter().rev().copied())
            .collect();
        assert_eq!(cuda.download(&output).expect("done"), mirrored, "{turns:?}");
    }
}

#[test]
fn a_missing_barrier_shows() {
    let run = |turns| {
        let cuda = gpu(turns);
        let input = cuda.upload(&[1u32; 64]).expect("room");
        let output = cuda.alloc::<u32>(64).expect("room");
        let grid = Grid::new(1, 64).shared(4 * 64);
        let launched = cuda.start(
            kernel("selftest_mirror"),
            grid,
            arguments![&input, &output, 0u32],
        );
        launched.expect("it runs");
        cuda.download(&output).expect("done")
    };
    // The first to run reads what nobody wrote: shared memory starts as garbage.
    assert_eq!(run(Turns::Forward)[0], u32::MAX);
    assert_eq!(run(Turns::Reverse)[63], u32::MAX);
    assert_ne!(run(Turns::Shuffled(3)), vec![1; 64]);
}

#[test]
fn shared_memory_starts_as_garbage_in_every_block() {
    let cuda = gpu(Turns::Forward);
    let output = cuda.alloc::<u32>(6).expect("room");
    let list = arguments![&output];
    let launched = cuda.start(kernel("selftest_unwritten"), Grid::new(3, 32), list);
    launched.expect("it runs");
    assert_eq!(cuda.download(&output).expect("done"), [u32::MAX; 6]);
}

#[test]
fn many_barriers_in_a_row() {
    for turns in ALL_TURNS {
        for threads in [1, 31, 33, 1_024] {
            let cuda = gpu(turns);
            let output = cuda.alloc::<u32>(1_024).expect("room");
            let grid = Grid::new(1, threads);
            let launched = cuda.start(kernel("selftest_rounds"), grid, arguments![&output, 100u32]);
            launched.expect("it runs");
            let got = cuda.download(&output).expect("done");
            let want: Vec<u32> = (0..threads).map(|t| (t + 100) % threads + 100).collect();
            assert_eq!(
                got[..threads as usize],
                want,
                "{turns:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn warp_operations_give_what_cuda_gives() {
    for turns in ALL_TURNS {
        let cuda = gpu(turns);
        let output = cuda.alloc::<u32>(64 * 8).expect("room");
        let launched = cuda.start(
            kernel("selftest_warp"),
            Grid::new(1, 64),
            arguments![&output],
        );
        launched.expect("it runs");
        let got = cuda.download(&output).expect("done");
        for (thread, got) in (0u32..).zip(got.chunks(8)) {
            let (base, lane) = (100 * (thread / 32), thread % 32);
            let want = [
                base + 5,
                base + if lane < 29 { lane + 3 } else { lane },
                base + if lane >= 3 { lane - 3 } else { lane },
                base + (lane ^ 16),
                0x4924_9249,
                u32::from(thread >= 32),
                base + lane / 8 * 8 + lane % 4,
                base + (lane ^ 2),
            ];
            assert_eq!(got, want, "{turns:?}, thread {thread}");
        }
    }
}

#[test]
fn lanes_see_each_other_whole() {
    for turns in ALL_TURNS {
        let cuda = gpu(turns);
        let output = cuda.alloc::<u32>(64 * 3).expect("room");
        let launched = cuda.start(
            kernel("selftest_lanes"),
            Grid::new(1, 64),
            arguments![&output],
        );
        launched.expect("it runs");
        let got = cuda.download(&output).expect("done");
        for (thread, got) in (0u32..).zip(got.chunks(3)) {
            let first = thread / 32 * 32;
            let sum: u32 = (first..first + 32).sum();
            assert_eq!(
                got,
                [sum, first + 31, sum + thread % 32],
                "{turns:?}, thread {thread}"
            );
        }
    }
}

#[test]
fn arguments_arrive() {
    let cuda = gpu(Turns::Forward);
    let output = cuda.alloc::<f32>(3).expect("room");
    let none = None::<&Slice<f32>>;
    let list = arguments![&output, -3i32, 1u64 << 40, 0.5f32, -1i64, none];
    let launched = cuda.start(kernel("selftest_arguments"), Grid::new(1, 32), list);
    launched.expect("it runs");
    let got = cuda.download(&output).expect("done");
    assert_eq!(got, [-2.5, ((1u64 << 40) - 1) as f32, 1.0]);
}

#[test]
fn builtins_are_those_of_the_host() {
    const MORE: [u32; 12] = [
        0,
        1,
        0x8080_8080,
        0x7f80_7f80,
        0xffff_ffff,
        0x4f00_0000,
        0xcf00_0000,
        0xcf00_0001,
        0x4eff_ffff,
        0x7fc0_0000,
        0xff80_0000,
        0x3fc0_0000,
    ];
    let mut a: Vec<u32> = (0..5_000u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    a.extend(MORE.iter().flat_map(|&more| [more; MORE.len()]));
    let mut b: Vec<u32> = (0..5_000u32).map(|i| i.wrapping_mul(0x85eb_ca6b)).collect();
    b.extend(MORE.iter().cycle().take(MORE.len() * MORE.len()));
    let cuda = gpu(Turns::Forward);
    let (on_a, on_b) = (
        cuda.upload(&a).expect("room"),
        cuda.upload(&b).expect("room"),
    );
    let output = cuda.alloc::<u32>(8 * a.len()).expect("room");
    let list = arguments![&on_a, &on_b, a.len() as u32, &output];
    let launched = cuda.start(kernel("selftest_builtins"), Grid::new(1, 32), list);
    launched.expect("it runs");
    let got = cuda.download(&output).expect("done");
    for ((&a, &b), got) in a.iter().zip(&b).zip(got.chunks(8)) {
        let bytes = a.to_ne_bytes().into_iter().zip(b.to_ne_bytes());
        let dot: i32 = bytes
            .map(|(a, b)| i32::from(a as i8) * i32::from(b as i8))
            .sum();
        let both = u64::from(b) << 32 | u64::from(a);
        let fused = f32::from_bits(a).mul_add(f32::from_bits(b), 1.0);
        let want = [
            (1_000 + dot) as u32,
            ((u64::from(a) * u64::from(b)) >> 32) as u32,
            a.leading_zeros(),
            a.count_ones(),
            (both >> (a % 32)) as u32,
            f32::from_bits(a).round_ties_even() as i32 as u32,
            fused.to_bits(),
            ((f64::from(a as i32) * 1e-40) as f32).to_bits(),
        ];
        assert_eq!(got[..6], want[..6], "{a:#x}, {b:#x}");
        assert!(got[6] == want[6] || fused.is_nan(), "{a:#x}, {b:#x}");
        assert_eq!(got[7], want[7], "{a:#x}");
    }
}

#[test]
fn every_thread_of_a_grid_runs_once() {
    for turns in ALL_TURNS {
        let cuda = gpu(turns);
        let visits = cuda.zeros::<u32>(7 * 5 * 3 * 70).expect("room");
        let grid = Grid::new(7, 70).y(5).z(3);
        cuda.start(kernel("selftest_grid"), grid, arguments![&visits])
            .expect("it runs");
        let got = cuda.download(&visits).expect("done");
        assert_eq!(got, vec![1; visits.len()], "{turns:?}");
    }
}

#[test]
fn a_race_of_blocks_shows_in_the_order_of_blocks() {
    let run = |turns| {
        let cuda = gpu(turns);
        let cell = cuda.upload(&[9u32]).expect("room");
        let output = cuda.alloc::<u32>(7).expect("room");
        let launched = cuda.start(
            kernel("selftest_race"),
            Grid::new(7, 32),
            arguments![&cell, &output],
        );
        launched.expect("it runs");
        cuda.download(&output).expect("done")
    };
    assert_eq!(run(Turns::Forward), [9, 0, 1, 2, 3, 4, 5]);
    assert_eq!(run(Turns::Reverse), [1, 2, 3, 4, 5, 6, 9]);
    let shuffled = run(Turns::Shuffled(5));
    assert!(shuffled != run(Turns::Forward) && shuffled != run(Turns::Reverse));
    assert_eq!(shuffled, run(Turns::Shuffled(5)));
}

#[test]
fn kernels_are_those_of_the_generation() {
    for (arch, emulated) in [(61, 61), (70, 70), (75, 75), (80, 80), (89, 80), (120, 80)] {
        let cuda = Cuda::emulated(EmulatorOptions {
            arch: Arch(arch),
            ..EmulatorOptions::default()
        });
        let output = cuda.alloc::<u32>(1).expect("room");
        let launched = cuda.start(
            kernel("selftest_arch"),
            Grid::new(1, 32),
            arguments![&output],
        );
        launched.expect("it runs");
        assert_eq!(cuda.download(&output).expect("done"), [emulated]);
    }
}

#[test]
fn threads_that_never_go_on_are_named() {
    let cases: [(&str, u32, &[&str]); 3] = [
        (
            "selftest_early_return",
            64,
            &[
                "block (0, 0, 0)",
                "63 threads wait at __syncthreads",
                "1 threads have left",
                "is 5",
            ],
        ),
        (
            "selftest_divergent",
            64,
            &[
                "32 threads wait at __syncthreads",
                "32 threads wait in a warp",
            ],
        ),
        ("selftest_mixed", 32, &["comes to", "a vote", "a shuffle"]),
    ];
    for turns in ALL_TURNS {
        let cuda = gpu(turns);
        let output = cuda.alloc::<u32>(64).expect("room");
        for (name, threads, words) in cases {
            let launched = cuda.start(kernel(name), Grid::new(2, threads), arguments![&output]);
            let words = if matches!(turns, Turns::Forward) {
                words
            } else {
                &words[1..]
            };
            assert_refused(launched, words);
        }
        // The GPU goes on with the next launch.
        let launched = cuda.start(
            kernel("selftest_rounds"),
            Grid::new(1, 64),
            arguments![&output, 3u32],
        );
        launched.expect("it runs");
    }
}

#[test]
fn accesses_out_of_range_are_found() {
    let cuda = gpu(Turns::Forward);
    let output = cuda.zeros::<u32>(100).expect("room");
    let grid = Grid::new(1, 32);
    let write = |index: i64| cuda.start(kernel("selftest_write"), grid, arguments![&output, index]);
    write(99).expect("it runs");
    assert_refused(
        write(100),
        &[
            "thread 3",
            "no allocation covers",
            "0 bytes past the end of an allocation of 400 bytes",
        ],
    );
    assert_refused(
        write(-50_000),
        &["before the start of an allocation of 400 bytes"],
    );
    assert_refused(
        write(50_000),
        &["past the end of an allocation of 400 bytes"],
    );
    // Nearer to the start no page guards; the bytes there do.
    assert_refused(
        write(-1),
        &["outside of the allocation of 400 bytes of argument 0"],
    );
    let odd = cuda.zeros::<u32>(5).expect("room");
    let launched = cuda.start(kernel("selftest_write"), grid, arguments![&odd, 6i64]);
    assert_refused(
        launched,
        &["outside of the allocation of 20 bytes of argument 0"],
    );
    let none = None::<&Slice<u32>>;
    let launched = cuda.start(kernel("selftest_write"), grid, arguments![none, 0i64]);
    assert_refused(launched, &["no allocation covers"]);
    let launched = cuda.start(kernel("selftest_divide"), grid, arguments![&output, 0u32]);
    assert_refused(launched, &["by zero"]);
    assert_eq!(cuda.download(&output).expect("done")[99], 7);
}

#[test]
fn fresh_memory_is_garbage_and_freed_memory_gone() {
    let cuda = gpu(Turns::Forward);
    let fresh = cuda.alloc::<f32>(33).expect("room");
    assert!(
        cuda.download(&fresh)
            .expect("done")
            .iter()
            .all(|v| v.is_nan())
    );
    let held = cuda.memory().in_use();
    let again = cuda.alloc::<u32>(10).expect("room");
    assert_eq!(cuda.memory().in_use(), held + 40);
    drop(again);
    assert_eq!(cuda.memory().in_use(), held);
    assert_eq!(cuda.memory().cached, 0);
}

#[test]
fn launches_that_are_not_the_kernels_are_refused() {
    let cuda = gpu(Turns::Forward);
    let output = cuda.alloc::<u32>(1_024).expect("room");
    let one = Grid::new(1, 32);
    let rounds = kernel("selftest_rounds");
    let launch = |kernel, grid, list: &[Argument]| cuda.start(kernel, grid, list);
    assert_refused(
        launch(kernel("selftest_none"), one, &[]),
        &["selftest::selftest_none", "no such"],
    );
    assert_refused(
        launch(rounds, one, arguments![&output]),
        &["takes 2 arguments (pi), got 1"],
    );
    assert_refused(
        launch(rounds, one, arguments![&output, 1u64]),
        &["argument 1", "4 bytes, got 8"],
    );
    let good = arguments![&output, 1u32];
    assert_refused(
        launch(rounds, Grid::new(1, 1_025), good),
        &["1025 threads", "at most 1024"],
    );
    assert_refused(
        launch(rounds, Grid::new(0, 32), good),
        &["0 x 1 x 1", "empty"],
    );
    assert_refused(launch(rounds, Grid::new(1, 0), good), &["empty"]);
    assert_refused(launch(rounds, one.y(65_536), good), &["65,535"]);
    assert_refused(launch(rounds, Grid::new(1 << 31, 32), good), &["2^31 - 1"]);
    let shared = cuda.shared_memory_max();
    assert_refused(
        launch(rounds, one.shared(shared + 1), good),
        &["shared memory"],
    );
    launch(rounds, one.shared(shared), good).expect("it runs");
}

#[test]
fn memory_runs_out() {
    let cuda = Cuda::emulated(EmulatorOptions {
        memory_bytes: 1_000,
        ..EmulatorOptions::default()
    });
    let most = cuda.alloc::<u8>(900).expect("room");
    let refused = cuda.alloc::<u8>(101).map(drop);
    assert_refused(refused, &["101 bytes"]);
    drop(most);
    cuda.alloc::<u8>(1_000).expect("room again");
}

#[test]
fn a_lost_gpu_stays_lost() {
    let cuda = Cuda::emulated(EmulatorOptions {
        lost_after: Some(2),
        ..EmulatorOptions::default()
    });
    let output = cuda.alloc::<u32>(32).expect("room");
    let launch = || {
        let list = arguments![&output, 1u32];
        cuda.start(kernel("selftest_rounds"), Grid::new(1, 32), list)
    };
    launch().expect("it runs");
    launch().expect("it runs");
    assert_refused(launch(), &["lost"]);
    assert_refused(cuda.download(&output).map(drop), &["lost"]);
    assert_refused(cuda.alloc::<u32>(1).map(drop), &["lost"]);
    assert_refused(cuda.synchronise(), &["lost"]);
}

#[test]
fn a_watch_records_launches_and_takes_the_gpu_away() {
    let (cuda, watch) = Cuda::emulated_with_watch(EmulatorOptions::default());
    let output = cuda.alloc::<u32>(64).expect("room");
    let grid = Grid::new(2, 32).shared(16);
    let rounds = kernel("selftest_rounds");
    let launch = || cuda.start(rounds, grid, arguments![&output, 1u32]);
    launch().expect("it runs");
    let launched = Launched {
        kernel: rounds,
        grid,
    };
    assert_eq!(watch.launches(), [launched]);
    assert_eq!(watch.launches(), []);
    watch.lose();
    assert_refused(launch(), &["lost"]);
}

#[test]
fn several_gpus_work_at_once() {
    std::thread::scope(|scope| {
        for turns in ALL_TURNS {
            scope.spawn(move || {
                let cuda = gpu(turns);
                let output = cuda.alloc::<u32>(1_024).expect("room");
                for _ in 0..20 {
                    let list = arguments![&output, 20u32];
                    let launched = cuda.start(kernel("selftest_rounds"), Grid::new(1, 96), list);
                    launched.expect("it runs");
                }
                let want: Vec<u32> = (0..96).map(|t| (t + 20) % 96 + 20).collect();
                assert_eq!(cuda.download(&output).expect("done")[..96], want);
            });
        }
    });
}
