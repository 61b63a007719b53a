//! Kernels of `provenance.hip`: which elements of which buffers flow into theirs, and which line wrote them.

use super::{PROCESSORS, Run, compile};
use accuracy_core::emulator::launch::Launch;
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::provenance::{Answer, Asked, Lost, Question, ask};
use accuracy_core::emulator::scrutiny::declared::Declared;
use std::collections::BTreeSet;

const SOURCE: &str = include_str!("provenance.hip");

/// A buffer that a test declares; one without a name is memory that the launcher keeps to itself.
struct Buffer {
    name: &'static str,
    /// Bits of an element.
    bits: u64,
    data: Vec<u32>,
}

fn buffer(name: &'static str, elements: usize) -> Buffer {
    let data = (0..elements).map(|i| (1.0 + i as f32).to_bits()).collect();
    Buffer { name, bits: 32, data }
}

fn indices(name: &'static str, values: &[u32]) -> Buffer {
    Buffer { name, bits: 32, data: values.to_vec() }
}

/// Runs kernels, each with so many workgroups of 64 threads and all buffers as its arguments, and asks about elements of
/// the first buffer.
fn asked(
    module: &Module,
    kernels: &[(&str, u32)],
    mut buffers: Vec<Buffer>,
    elements: &[u64],
) -> Vec<Answer> {
    let bytes = buffers[0].bits / 8;
    let element = |i: &u64| Asked { buffer: buffers[0].name.into(), offset: i * bytes, bytes };
    let question =
        Question { targets: vec![buffers[0].name.into()], elements: elements.iter().map(element).collect() };
    let mut declared: Vec<Declared> = buffers
        .iter()
        .filter(|buffer| !buffer.name.is_empty())
        .map(|buffer| {
            let start = buffer.data.as_ptr().expose_provenance() as u64;
            let bytes = 4 * buffer.data.len() as u64;
            let (name, around) = (buffer.name.into(), (start, start + bytes));
            Declared { name, start, bytes, around, rows: None, element: buffer.bits }
        })
        .collect();
    declared.sort_by_key(|buffer| buffer.start);
    let answers = ask(&question, |mut tracking| {
        for (kernel, blocks) in kernels {
            let run = buffers
                .iter_mut()
                .fold(Run::new(module, kernel, *blocks, 64), |run, buffer| run.buffer(&mut buffer.data));
            let launch = Launch {
                arguments: &run.arguments,
                regions: &run.regions,
                ..Launch::new(module, module.kernel(kernel).unwrap(), [*blocks, 1, 1], [64, 1, 1])
            };
            tracking.begin_launch(module, &declared);
            let (result, followed) = launch.run_followed(tracking);
            result.unwrap();
            tracking = followed.unwrap();
            tracking.end_launch(|at| {
                let mnemonic = module.instruction(at).unwrap().row.mnemonic;
                ((*kernel).to_owned(), mnemonic.to_owned(), 0, module.line(at))
            });
        }
        Some(tracking)
    });
    answers.unwrap()
}

/// What flowed into one element, as the numbers of elements, by the names of the buffers.
fn took(answer: &Answer) -> Vec<(&str, Vec<u64>)> {
    assert!(answer.not_followed.is_empty(), "{:?}", answer.not_followed);
    let number = |offset: &u64| offset / 4;
    let mut took: Vec<(&str, Vec<u64>)> = answer
        .took
        .iter()
        .map(|taken| (&*taken.buffer, taken.offsets.iter().map(number).collect()))
        .collect();
    took.sort();
    took
}

fn each(test: impl Fn(&Module)) {
    for processor in PROCESSORS {
        let Some(file) = compile::hip(processor, "provenance.hip", &["-O2", "-g"]) else { return };
        test(&Module::load(&file, processor).unwrap());
    }
}

fn range(from: u64, count: u64) -> Vec<u64> {
    (from..from + count).collect()
}

#[test]
fn scales_of_another_row_are_told_with_the_line_that_wrote_the_element() {
    each(|module| {
        let of = |kernel| {
            let buffers = vec![buffer("y", 256), buffer("x", 256), buffer("s", 8)];
            asked(module, &[(kernel, 4)], buffers, &[3 * 64 + 17]).remove(0)
        };
        let right = of("scaled");
        assert_eq!(took(&right), [("s", vec![3]), ("x", vec![209])]);
        let writer = right.writer.unwrap();
        let line = SOURCE.lines().position(|text| text.ends_with("// scaled")).unwrap() as u32 + 1;
        assert_eq!((writer.line.unwrap().1, writer.block, writer.lane), (line, [3, 0, 0], 17));
        assert!(writer.mnemonic.starts_with("global_store"), "{}", writer.mnemonic);
        assert_eq!(took(&of("scaled_wrong")), [("s", vec![4]), ("x", vec![209])]);
    });
}

#[test]
fn a_tail_that_is_left_out_is_missing() {
    each(|module| {
        let of = |kernel| {
            let buffers = vec![buffer("y", 64), buffer("x", 64 * 40), buffer("w", 40)];
            asked(module, &[(kernel, 1)], buffers, &[5]).remove(0)
        };
        assert_eq!(took(&of("dot")), [("w", range(0, 40)), ("x", range(200, 40))]);
        assert_eq!(took(&of("dot_wrong")), [("w", range(0, 32)), ("x", range(200, 32))]);
    });
}

#[test]
fn a_neighbours_expert_is_told_from_the_index_that_names_the_right_one() {
    each(|module| {
        let of = |kernel| {
            let buffers =
                vec![buffer("y", 128), buffer("x", 128), buffer("w", 256), indices("expert", &[2, 1])];
            asked(module, &[(kernel, 2)], buffers, &[70]).remove(0)
        };
        for (kernel, row) in [("routed", 1), ("routed_wrong", 0)] {
            let answer = of(kernel);
            assert_eq!(took(&answer), [("w", vec![row * 64 + 6]), ("x", vec![70])], "{kernel}");
            let steers: Vec<_> =
                answer.through.iter().map(|taken| (&*taken.buffer, taken.offsets.len())).collect();
            assert_eq!(steers, [("expert", 1)], "{kernel}");
        }
    });
}

#[test]
fn an_operand_that_is_read_twice_leaves_the_other_out() {
    each(|module| {
        let of = |kernel| {
            let buffers = vec![buffer("y", 64), buffer("a", 64), buffer("b", 64)];
            asked(module, &[(kernel, 1)], buffers, &[9]).remove(0)
        };
        assert_eq!(took(&of("product")), [("a", vec![9]), ("b", vec![9])]);
        assert_eq!(took(&of("product_wrong")), [("a", vec![9])]);
    });
}

#[test]
fn values_are_followed_through_lds() {
    each(|module| {
        let of =
            |kernel| asked(module, &[(kernel, 1)], vec![buffer("y", 64), buffer("x", 64)], &[10]).remove(0);
        assert_eq!(took(&of("reversed")), [("x", vec![53])]);
        assert_eq!(took(&of("reversed_wrong")), [("x", vec![54])]);
    });
}

#[test]
fn values_are_followed_through_matrix_instructions() {
    each(|module| {
        let of = |kernel| {
            let buffers = vec![buffer("y", 256), buffer("a", 64), buffer("b", 64)];
            asked(module, &[(kernel, 1)], buffers, &[6 * 16 + 13]).remove(0)
        };
        let column = vec![13, 29, 45, 61];
        assert_eq!(took(&of("matrix")), [("a", range(24, 4)), ("b", column.clone())]);
        assert_eq!(took(&of("matrix_wrong")), [("a", range(28, 4)), ("b", column)]);
    });
}

#[test]
fn an_element_that_shares_a_register_with_its_neighbour_took_its_own() {
    each(|module| {
        let of = |kernel| {
            let y = Buffer { bits: 16, ..buffer("y", 64) };
            asked(module, &[(kernel, 1)], vec![y, buffer("x", 128)], &[20, 21])
        };
        let both = |answers: &[Answer]| -> Vec<u64> { answers.iter().map(|a| took(a)[0].1[0]).collect() };
        let right = of("packed");
        assert!(right.iter().all(|answer| took(answer)[0].1.len() == 1));
        assert_eq!(both(&right), [20, 21]);
        assert_eq!(both(&of("packed_wrong")), [21, 20]);
    });
}

#[test]
fn values_are_followed_from_lane_to_lane() {
    each(|module| {
        let of = |kernel| asked(module, &[(kernel, 1)], vec![buffer("y", 64), buffer("x", 64)], &[37, 5]);
        let right = of("largest");
        assert_eq!(took(&right[0]), [("x", range(32, 16))]);
        assert_eq!(took(&right[1]), [("x", range(0, 16))]);
        let wrong = of("largest_wrong");
        assert_eq!(took(&wrong[0]), [("x", range(32, 16))]);
        assert!(!took(&wrong[1])[0].1.contains(&3), "{:?}", took(&wrong[1]));
    });
}

#[test]
fn values_are_followed_from_launch_to_launch_through_memory_that_is_not_declared() {
    each(|module| {
        let of = |kernel| {
            let buffers = vec![buffer("y", 64), buffer("x", 192), buffer("", 192)];
            asked(module, &[("parts", 3), (kernel, 1)], buffers, &[7]).remove(0)
        };
        assert_eq!(took(&of("sum")), [("x", vec![7, 71, 135])]);
        assert_eq!(took(&of("sum_wrong")), [("x", vec![7, 71])]);
    });
}

#[test]
fn what_atomics_of_several_workgroups_add_is_all_told() {
    each(|module| {
        let buffers = vec![buffer("y", 64), buffer("x", 192)];
        let answer = asked(module, &[("added", 3)], buffers, &[8]).remove(0);
        // What the element held before flows into it, too.
        assert_eq!(took(&answer), [("x", vec![8, 72, 136]), ("y", vec![8])]);
    });
}

#[test]
fn what_more_workgroups_add_than_there_are_runs_is_all_told() {
    each(|module| {
        let zeros = Buffer { data: vec![0; 64], ..buffer("", 64) };
        let buffers = vec![buffer("y", 64), buffer("x", 64 * 40), zeros];
        let kernels = [("add_to_scratch", 40), ("from_scratch", 1)];
        let answer = asked(module, &kernels, buffers, &[8]).remove(0);
        let expected: Vec<u64> = (0..40).map(|block| 64 * block + 8).collect();
        assert_eq!(took(&answer), [("x", expected)]);
    });
}

#[test]
fn all_workgroups_that_are_too_many_to_follow_are_named() {
    each(|module| {
        let zeros = Buffer { data: vec![0; 64], ..buffer("", 64) };
        let buffers = vec![buffer("y", 64), buffer("x", 64 * 300), zeros];
        let kernels = [("add_to_scratch", 300), ("from_scratch", 1)];
        let answer = asked(module, &kernels, buffers, &[8]).remove(0);
        let expected: BTreeSet<Lost> = (0..300).map(|group| Lost::Group { launch: 0, group }).collect();
        assert_eq!(answer.not_followed, expected);
    });
}

/// The elements that only decided what flowed, as the numbers of elements, by the names of the buffers.
fn decided(answer: &Answer) -> Vec<(&str, Vec<u64>)> {
    answer.through.iter().map(|of| (&*of.buffer, of.offsets.iter().map(|at| at / 4).collect())).collect()
}

#[test]
fn a_value_behind_a_branch_names_what_decided_whichever_way_it_went() {
    each(|module| {
        let buffers = || vec![buffer("y", 128), buffer("x", 64), indices("flag", &[0, 1])];
        let answers = asked(module, &[("branched", 2)], buffers(), &[3, 64 + 3]);
        assert!(took(&answers[0]).is_empty(), "the way without a load was taken");
        assert_eq!(decided(&answers[0]), [("flag", vec![0])]);
        assert_eq!(took(&answers[1]), [("x", vec![3])]);
        assert_eq!(decided(&answers[1]), [("flag", vec![1])]);
    });
}

#[test]
fn a_lane_names_what_switched_it_off_or_on_and_not_what_did_so_with_others() {
    each(|module| {
        let flags: Vec<u32> = (0..64).map(|i| i % 2).collect();
        let buffers = vec![buffer("y", 64), buffer("x", 64), indices("flag", &flags)];
        let answers = asked(module, &[("branched_by_thread", 1)], buffers, &[6, 7]);
        assert_eq!((took(&answers[0]), decided(&answers[0])), (vec![], vec![("flag", vec![6])]));
        assert_eq!(
            (took(&answers[1]), decided(&answers[1])),
            (vec![("x", vec![7])], vec![("flag", vec![7])])
        );
        // All lanes are off: the code behind the branch is not executed at all.
        let buffers = vec![buffer("y", 64), buffer("x", 64), indices("flag", &[0; 64])];
        let answers = asked(module, &[("branched_by_thread", 1)], buffers, &[6]);
        assert_eq!((took(&answers[0]), decided(&answers[0])), (vec![], vec![("flag", vec![6])]));
    });
}

#[test]
fn a_branch_by_what_is_not_loaded_decides_nothing() {
    each(|module| {
        let buffers = vec![buffer("y", 64), buffer("x", 64), indices("flag", &[0; 64])];
        let answers = asked(module, &[("bounded", 1)], buffers, &[5]);
        assert_eq!(took(&answers[0]), [("flag", vec![5]), ("x", vec![5])]);
        assert!(decided(&answers[0]).is_empty());
    });
}
