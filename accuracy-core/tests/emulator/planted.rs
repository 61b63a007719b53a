//! Faults planted in hand-written assembly: each is found at its line, and the same kernel without it has no finding. The table
//! `planted.md` lists these and the kernels in HIP.

use super::{PROCESSORS, Run, compile, races, scrutiny};
use accuracy_core::emulator::executed::Executed;
use accuracy_core::emulator::isa::Processor;
use accuracy_core::emulator::launch::{Launch, Watched};
use accuracy_core::emulator::loader::Module;
use accuracy_core::emulator::rerun;
use accuracy_core::emulator::scrutiny::declared::{Declared, Rows};
use accuracy_core::emulator::scrutiny::{Kind, What};
use accuracy_core::emulator::unwritten::Unwritten;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is found in a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Hazard,
    /// One for which the hardware waits by itself.
    HarmlessHazard,
    Wait,
    Erratum,
    Seen(Kind),
}

impl Found {
    fn name(self) -> &'static str {
        match self {
            Found::Hazard => "missing_wait (s_nop)",
            Found::HarmlessHazard => "missing_wait (s_nop, note)",
            Found::Wait => "missing_wait",
            Found::Erratum => "erratum",
            Found::Seen(Kind::Race) => "race",
            Found::Seen(Kind::Uninitialised) => "uninitialised",
            Found::Seen(Kind::Barrier) => "barrier",
            Found::Seen(Kind::Divergence) => "divergence",
            Found::Seen(Kind::OutOfBounds) => "out_of_bounds",
            Found::Seen(Kind::Clamped) => "out_of_bounds (note)",
        }
    }
}

/// A kernel in assembly. Lines that begin with `-` are only in the version with the fault, those with `+` only in the one
/// without, and those with `!` are where it is found.
struct Pair {
    name: &'static str,
    found: Found,
    threads: u32,
    body: &'static str,
}

const fn hazard(name: &'static str, body: &'static str) -> Pair {
    Pair { name, found: Found::Hazard, threads: 64, body }
}

const fn harmless(name: &'static str, body: &'static str) -> Pair {
    Pair { name, found: Found::HarmlessHazard, threads: 64, body }
}

const fn wait(name: &'static str, body: &'static str) -> Pair {
    Pair { name, found: Found::Wait, threads: 64, body }
}

const fn seen(name: &'static str, kind: Kind, threads: u32, body: &'static str) -> Pair {
    Pair { name, found: Found::Seen(kind), threads, body }
}

/// In every body s[4:5] is the address of `y`, s[6:7] that of `x`, v1 is four times the thread, and v2 to v63 hold 1.0.
static PAIRS: [Pair; 45] = [
    hazard(
        "matrix_result_read",
        "v_mfma_f32_4x4x4_16b_f16 v[4:7], v[8:9], v[10:11], 0\n+s_nop 4\n!v_add_f32 v12, v4, v4",
    ),
    hazard(
        "matrix_result_stored",
        "v_mfma_f32_16x16x16_f16 v[4:7], v[8:9], v[10:11], 0\n+s_nop 7\n!global_store_dword v1, v4, s[4:5]",
    ),
    hazard(
        "matrix_result_overwritten",
        "v_mfma_f32_16x16x16_f16 v[4:7], v[8:9], v[10:11], 0\n+s_nop 7\n!v_mov_b32 v5, 0",
    ),
    hazard(
        "matrix_result_multiplied",
        "v_mfma_f32_16x16x16_f16 v[4:7], v[8:9], v[10:11], 0\n+s_nop 7\n!v_mfma_f32_16x16x16_f16 v[16:19], v[4:5], v[10:11], 0",
    ),
    hazard(
        "matrix_result_partly_added",
        "v_mfma_f32_32x32x8_f16 v[16:31], v[8:9], v[10:11], 0\n+s_nop 9\n!v_mfma_f32_16x16x16_f16 v[32:35], v[8:9], v[10:11], v[20:23]",
    ),
    hazard(
        "matrix_source_overwritten",
        "v_mfma_f32_16x16x16_f16 v[4:7], v[8:9], v[10:11], v[12:15]\n+s_nop 2\n!v_mov_b32 v12, 0",
    ),
    hazard("matrix_of_float32", "v_mfma_f32_16x16x4_f32 v[4:7], v8, v9, 0\n+s_nop 9\n!v_add_f32 v12, v4, v4"),
    hazard(
        "matrix_of_float64",
        "v_mfma_f64_4x4x4_4b_f64 v[4:5], v[8:9], v[10:11], 0\n+s_nop 5\n!v_add_f64 v[12:13], v[4:5], v[4:5]",
    ),
    hazard(
        "float64_behind_matrix",
        "v_mfma_f64_4x4x4_4b_f64 v[4:5], v[8:9], v[10:11], 0\n+s_nop 1\n!v_fma_f64 v[12:13], v[14:15], v[14:15], v[14:15]",
    ),
    hazard(
        "matrix_of_fp8",
        "v_mfma_f32_32x32x16_fp8_fp8 v[16:31], v[8:9], v[10:11], 0\n+s_nop 11\n!v_mul_f32 v12, v30, v4",
    ),
    hazard(
        "matrix_of_int8_loaded_over",
        "v_mfma_i32_16x16x32_i8 v[4:7], v[8:9], v[10:11], 0\n+s_nop 7\n!global_load_dword v6, v1, s[6:7]\ns_waitcnt vmcnt(0)",
    ),
    hazard(
        "matrix_added_at_once",
        "v_mfma_f32_4x4x4_16b_f16 v[4:7], v[8:9], v[10:11], v[4:7]\n+s_nop 1\n!v_mfma_f32_4x4x4_16b_f16 v[4:7], v[8:9], v[10:11], v[4:7]",
    ),
    hazard(
        "vector_result_multiplied",
        "v_mov_b32 v8, 1.0\n+s_nop 1\n!v_mfma_f32_16x16x16_f16 v[4:7], v[8:9], v[10:11], 0",
    ),
    hazard(
        "lanes_before_matrix",
        "v_cmpx_eq_u32 v0, v0\n+s_nop 3\n!v_mfma_f32_16x16x16_f16 v[4:7], v[8:9], v[10:11], 0",
    ),
    hazard(
        "matrix_in_loop",
        "s_mov_b32 s8, 0\nv_mfma_f32_32x32x8_f16 v[4:19], v[20:21], v[22:23], 0\ns_nop 15\n.Lmatrix_loop:\n!v_add_f32 v24, v4, v4\ns_add_u32 s8, s8, 1\ns_cmp_lt_u32 s8, 3\nv_mfma_f32_32x32x8_f16 v[4:19], v[20:21], v[22:23], 0\n+s_nop 15\ns_cbranch_scc1 .Lmatrix_loop",
    ),
    hazard("reciprocal", "v_rcp_f32 v4, v2\n+s_nop 0\n!v_add_f32 v5, v4, v4"),
    hazard("exponential", "v_exp_f32 v4, v2\n+s_nop 0\n!v_mul_f32 v5, v4, v2"),
    hazard("square_root", "v_rsq_f32 v4, v2\n+v_mov_b32 v9, 0\n!v_fma_f32 v5, v4, v4, v2"),
    hazard(
        "half_by_sdwa",
        "v_mov_b32_sdwa v4, v2 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:DWORD\n+s_nop 0\n!v_add_u32 v5, v4, v4",
    ),
    hazard("half_by_op_sel", "v_fma_f16 v4, v2, v2, v2 op_sel:[0,0,0,1]\n+s_nop 0\n!v_add_u32 v5, v4, v4"),
    hazard("lane_read", "v_mov_b32 v4, 1\n+s_nop 0\n!v_readlane_b32 s8, v4, 0"),
    hazard("lane_read_behind_lanes", "v_cmpx_eq_u32 v0, v0\n+s_nop 3\n!v_readfirstlane_b32 s8, v2"),
    hazard("lane_selected", "v_readfirstlane_b32 s8, v0\n+s_nop 3\n!v_readlane_b32 s9, v2, s8"),
    harmless("scalar_read", "v_readfirstlane_b32 s8, v0\n+s_nop 1\n!v_add_u32 v4, s8, v2"),
    hazard(
        "scalar_as_address",
        "v_mov_b32 v4, s4\nv_mov_b32 v5, s5\ns_nop 0\nv_readfirstlane_b32 s9, v5\nv_readfirstlane_b32 s8, v4\n+s_nop 4\n!global_store_dword v1, v0, s[8:9]",
    ),
    harmless("mask_read", "v_cmp_eq_u32 vcc, v0, v2\n+s_nop 1\n!v_cndmask_b32 v4, v2, v0, vcc"),
    hazard("mask_of_division", "v_cmp_eq_u32 vcc, v0, v2\n+s_nop 3\n!v_div_fmas_f32 v4, v2, v2, v2"),
    harmless(
        "neighbour",
        "v_mov_b32 v4, v2\n+s_nop 1\n!v_mov_b32_dpp v5, v4 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf",
    ),
    hazard(
        "neighbour_behind_lanes",
        "v_cmpx_eq_u32 v0, v0\n+s_nop 4\n!v_mov_b32_dpp v5, v2 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf",
    ),
    hazard("dot", "v_dot2_f32_f16 v4, v8, v9, v10\n+s_nop 2\n!v_add_f32 v5, v4, v4"),
    hazard(
        "stored_overwritten",
        "v_mov_b32 v3, 0\nglobal_store_dwordx4 v3, v[4:7], s[4:5]\n+s_nop 1\n!v_mov_b32 v5, 0",
    ),
    hazard(
        "mode_read",
        "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 0\n+s_nop 1\n!s_getreg_b32 s8, hwreg(HW_REG_MODE)",
    ),
    harmless(
        "loads_into_lds",
        "v_mov_b32 v3, 0\ns_mov_b32 m0, 0\n+s_nop 0\n!global_load_lds_dword v3, s[6:7]\ns_waitcnt vmcnt(0)",
    ),
    wait("load_read", "global_load_dword v4, v1, s[6:7]\n+s_waitcnt vmcnt(0)\n!v_add_f32 v5, v4, v4"),
    wait(
        "load_counted",
        "global_load_dword v3, v1, s[6:7]\nglobal_load_dword v4, v1, s[6:7]\n-s_waitcnt vmcnt(1)\n+s_waitcnt vmcnt(0)\n!v_add_f32 v5, v4, v4",
    ),
    wait("load_overwritten", "global_load_dword v4, v1, s[6:7]\n+s_waitcnt vmcnt(0)\n!v_mov_b32 v4, 0"),
    wait(
        "load_stored",
        "global_load_dword v4, v1, s[6:7]\n+s_waitcnt vmcnt(0)\n!global_store_dword v1, v4, s[4:5]",
    ),
    wait(
        "lds_read",
        "ds_write_b32 v1, v2\ns_waitcnt lgkmcnt(0)\nds_read_b32 v4, v1\n+s_waitcnt lgkmcnt(0)\n!v_add_f32 v5, v4, v4",
    ),
    wait("scalar_load_read", "s_load_dword s8, s[6:7], 0\n+s_waitcnt lgkmcnt(0)\n!v_mov_b32 v4, s8"),
    seen(
        "behind_in_assembly",
        Kind::OutOfBounds,
        64,
        "-v_add_u32 v1, 4, v1\n!global_store_dword v1, v0, s[4:5]",
    ),
    seen(
        "lds_in_assembly",
        Kind::Uninitialised,
        64,
        "+ds_write_b32 v1, v2\n+s_waitcnt lgkmcnt(0)\nds_read_b32 v4, v1\ns_waitcnt lgkmcnt(0)\n!global_store_dword v1, v4, s[4:5]",
    ),
    seen(
        "register_in_assembly",
        Kind::Uninitialised,
        64,
        "+v_mov_b32 v100, 0\n!global_store_dword v1, v100, s[4:5]",
    ),
    seen(
        "barrier_of_some_lanes_in_assembly",
        Kind::Divergence,
        64,
        "-s_mov_b64 exec, 0xffff\n!s_barrier\ns_mov_b64 exec, -1\nglobal_store_dword v1, v0, s[4:5]",
    ),
    seen(
        "race_in_assembly",
        Kind::Race,
        128,
        "!ds_write_b32 v1, v2\n+s_waitcnt lgkmcnt(0)\n+s_barrier\nv_xor_b32 v3, 0x100, v1\n!ds_read_b32 v4, v3\ns_waitcnt lgkmcnt(0)",
    ),
    Pair {
        name: "erratum_in_assembly",
        found: Found::Erratum,
        threads: 64,
        body: "-!v_pk_fma_f32 v[4:5], v[6:7], v[8:9], v[10:11] op_sel:[0,1,0]\n+v_pk_fma_f32 v[4:5], v[6:7], v[8:9], v[10:11]",
    },
];

/// Source text of a kernel, and the lines at which its fault is found.
fn text(pair: &Pair, processor: Processor, faulty: bool) -> (String, BTreeSet<u32>) {
    let name = pair.name;
    let mut text = format!(
        ".amdgcn_target \"amdgcn-amd-amdhsa--{}\"\n.text\n.globl {name}\n.p2align 8\n.type {name},@function\n{name}:\n\
         s_load_dwordx4 s[4:7], s[0:1], 0x0\nv_lshlrev_b32 v1, 2, v0\n.set i, 2\n.rept 62\nv_mov_b32 v[i], 1.0\n.set i, i+1\n\
         .endr\ns_waitcnt lgkmcnt(0)\ns_nop 7\n",
        processor.name()
    );
    let mut marked = BTreeSet::new();
    for line in pair.body.lines() {
        let (only_faulty, line) = line.strip_prefix('-').map_or((false, line), |line| (true, line));
        let (only_right, line) = line.strip_prefix('+').map_or((false, line), |line| (true, line));
        let (is_marked, line) = line.strip_prefix('!').map_or((false, line), |line| (true, line));
        if only_faulty && !faulty || only_right && faulty {
            continue;
        }
        text += line;
        text.push('\n');
        if is_marked {
            marked.insert(text.lines().count() as u32);
        }
    }
    text += &format!(
        "s_nop 15\ns_endpgm\n.rodata\n.p2align 6\n.amdhsa_kernel {name}\n.amdhsa_group_segment_fixed_size 1024\n\
         .amdhsa_user_sgpr_kernarg_segment_ptr 1\n.amdhsa_next_free_vgpr 128\n.amdhsa_next_free_sgpr 64\n\
         .amdhsa_accum_offset 128\n.end_amdhsa_kernel\n.amdgpu_metadata\n---\namdhsa.version: [1, 2]\namdhsa.kernels:\n  \
         - .name: {name}\n    .symbol: {name}.kd\n    .kernarg_segment_size: 16\n    .kernarg_segment_align: 8\n    \
         .group_segment_fixed_size: 1024\n    .private_segment_fixed_size: 0\n    .wavefront_size: 64\n    .sgpr_count: 64\n    \
         .vgpr_count: 128\n    .max_flat_workgroup_size: 256\n    .args:\n      - {{ .size: 8, .offset: 0, .value_kind: \
         global_buffer, .address_space: global }}\n      - {{ .size: 8, .offset: 8, .value_kind: global_buffer, \
         .address_space: global }}\n...\n.end_amdgpu_metadata\n"
    );
    (text, marked)
}

fn execute(module: &Module, pair: &Pair) -> Executed {
    let mut y = vec![0.0_f32; 1024];
    let mut x = vec![1.0_f32; 1024];
    let start = y.as_ptr().expose_provenance() as u64;
    let columns = u64::from(pair.threads);
    let rows = Rows { runs: 1, bits: 32 * columns, stride: 32 * columns, element: 32, transposed: false };
    let declared = Declared {
        name: "y".into(),
        start,
        bytes: 4 * columns,
        around: (start, start + 4096),
        rows: Some(rows),
        element: 32,
    };
    let run = Run::new(module, pair.name, 1, pair.threads).buffer(&mut y).buffer(&mut x);
    let races = pair.found == Found::Seen(Kind::Race);
    let launch = Launch {
        arguments: &run.arguments,
        regions: &run.regions,
        scrutiny: Some(Watched { races, declared: Arc::new(vec![declared]) }),
        ..Launch::new(module, module.kernel(pair.name).unwrap(), [1; 3], [pair.threads, 1, 1])
    };
    rerun::run(&launch, &mut Unwritten::default()).unwrap()
}

/// Everything that is found in a kernel, with its line.
fn found(module: &Module, executed: &Executed) -> BTreeSet<(Found, u32)> {
    let line = |at: u64| module.line(at).map_or(0, |(_, line)| line);
    let mut all = BTreeSet::new();
    all.extend(executed.hazards.iter().map(|(at, hazard)| {
        let found = if hazard.is_harmless() { Found::HarmlessHazard } else { Found::Hazard };
        (found, line(*at))
    }));
    all.extend(executed.missing_waits.keys().map(|at| (Found::Wait, line(*at))));
    all.extend(executed.errata.keys().map(|at| (Found::Erratum, line(*at))));
    for ((at, kind), sighting) in &executed.seen {
        all.insert((Found::Seen(*kind), line(*at)));
        if let What::Race(race) = &sighting.what {
            all.insert((Found::Seen(*kind), line(race.other)));
        }
    }
    all
}

#[test]
fn each_fault_in_assembly_is_found_at_its_line_and_the_kernel_without_it_has_none() {
    if compile::assembly(Processor::Gfx950).is_none() {
        return;
    }
    let mut wrong = Vec::new();
    for processor in PROCESSORS {
        for pair in &PAIRS {
            for faulty in [true, false] {
                let (text, lines) = text(pair, processor, faulty);
                let module = Module::load(&compile::assemble(processor, &text), processor).unwrap();
                let found = found(&module, &execute(&module, pair));
                let is_there = faulty && (pair.found != Found::Erratum || processor == Processor::Gfx950);
                let expected: BTreeSet<_> =
                    lines.iter().filter(|_| is_there).map(|line| (pair.found, *line)).collect();
                if found != expected {
                    wrong.push(format!(
                        "{} on {}, with the fault: {faulty}: {found:?}, and not {expected:?}",
                        pair.name,
                        processor.name()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_wait_state_of_a_compiled_kernel_is_missed_when_it_is_gone() {
    for processor in PROCESSORS {
        let Some(text) = compile::assembly(processor) else { return };
        let hazards = |text: &str| {
            Module::load(&compile::assemble(processor, text), processor).unwrap().hazards().len()
        };
        assert_eq!(hazards(&text), 0, "{}", processor.name());
        let lines: Vec<&str> = text.lines().collect();
        let nops = (0..lines.len()).filter(|at| lines[*at].trim().starts_with("s_nop"));
        let mut missed = 0;
        for at in nops {
            let rest = lines.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, line)| *line);
            let without: String = rest.flat_map(|line| [line, "\n"]).collect();
            assert!(hazards(&without) > 0, "{}: line {}, {}", processor.name(), at + 1, lines[at].trim());
            missed += 1;
        }
        assert!(missed > 0, "the compiler puts wait states behind matrix instructions");
    }
}

/// AddressSanitizer's answer to the same kernel in C++, with a thread of the host for each work item (g++ 12, `-O1
/// -fsanitize=address`, tried by hand). It looks for accesses outside of allocations, and for nothing else.
fn on_host(kernel: &str) -> &'static str {
    match kernel {
        "behind" | "padding" => "found",
        "round_the_barrier" | "loop_of_waves" | "some_threads" => "not found; the program waits for ever",
        "accumulator" | "clamped" | "transfer" => "is code of the device alone",
        _ => "not found",
    }
}

/// The list of all pairs, as `planted.md` has it.
fn table() -> String {
    let mut rows: Vec<(&str, &str, &str, &str)> = Vec::new();
    let kinds = scrutiny::FAULTS.iter().map(|(kernel, _, kind)| (Found::Seen(*kind).name(), *kernel));
    rows.extend(kinds.map(|(found, kernel)| (found, kernel, "HIP, `scrutiny.hip`", on_host(kernel))));
    let races = races::RACES.iter().map(|(kernel, ..)| *kernel);
    rows.extend(races.map(|kernel| ("race", kernel, "HIP, `races.hip`", on_host(kernel))));
    let assembly = |pair: &'static Pair| {
        (pair.found.name(), pair.name, "assembly, `planted.rs`", "is code of the device alone")
    };
    rows.extend(PAIRS.iter().map(assembly));
    rows.sort_unstable();
    let mut text = String::from(
        "# Faults that are planted in kernels for the emulator's findings\n\nEach is a pair: the kernel with the fault, in which \
         the emulator tells the finding at the right line, and the same kernel without it, in which it tells nothing. All run on \
         gfx942 and gfx950, in `cargo test -p accuracy-core --features emulate --test emulator`. The erratum is one of gfx950 \
         alone. The last column is AddressSanitizer's answer to the same kernel in C++ on the host, with a thread for each work \
         item (g++ 12, `-O1 -fsanitize=address`): it looks for accesses outside of allocations, and for nothing else. \
         NVIDIA's compute-sanitizer was not tried, because it needs a GPU.\n\n",
    );
    text += &format!(
        "{} pairs:\n\n| finding | kernel | written in | AddressSanitizer |\n| --- | --- | --- | --- |\n",
        rows.len()
    );
    for (finding, kernel, place, host) in rows {
        text += &format!("| {finding} | `{kernel}` | {place} | {host} |\n");
    }
    text
}

#[test]
fn the_table_lists_every_pair_and_there_are_at_least_sixty() {
    let table = table();
    assert!(scrutiny::FAULTS.len() + races::RACES.len() + PAIRS.len() >= 60);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/emulator/planted.md");
    if std::env::var_os("ACCURACY_WRITE_TABLES").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, table, "write {path} anew with ACCURACY_WRITE_TABLES=1");
}
