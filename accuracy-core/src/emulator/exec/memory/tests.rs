//! Addresses and values were computed by hand or by the loops written out here.

use super::*;
use crate::emulator::isa::{Encoding, Execute, Inst, MemoryBits, Operand, Processor};
use crate::emulator::memory::{Clamped, Group, PRIVATE_APERTURE, Region, SHARED_APERTURE, Space};
use crate::emulator::wave::{Access, Fault, Flow, LANES, Lanes, Wave, register};

const NONE: Operand = Operand::None;

fn inst(dst: Operand, src: [Operand; 4], imm: i32) -> Inst {
    Inst {
        execute: ds_nop,
        size: 8,
        dst,
        src,
        imm,
        ..Inst::new(crate::emulator::isa::table::row("ds_nop").unwrap(), Encoding::Global)
    }
}

fn v(register: u16) -> Operand {
    Operand::Vector(register)
}

fn s(register: u8) -> Operand {
    Operand::Scalar(register)
}

/// A buffer of dwords that a kernel may use, `buffer[i] == 1000 + i`, and a wave with 4 KiB of LDS and 64 bytes of scratch.
struct Bench {
    space: Space,
    /// Addresses of the buffer and of another one that may only be read.
    start: u64,
    constant: u64,
}

const DWORDS: usize = 1024;

impl Bench {
    fn new() -> Bench {
        // Memory that the kernel may not use lies around both: 4 KiB before, between and behind them.
        let mut data: Vec<u32> = vec![0xbad0_bad0; 5 * DWORDS];
        (0..).zip(&mut data[DWORDS..2 * DWORDS]).for_each(|(i, dword)| *dword = 1000 + i);
        data[3 * DWORDS..][..64].fill(7);
        let data: &'static mut [u32] = Vec::leak(data);
        let start = data.as_mut_ptr().expose_provenance() as u64 + 4 * DWORDS as u64;
        let constant = start + 8 * DWORDS as u64;
        let regions = vec![
            Region { start, end: start + 4 * DWORDS as u64, writable: true },
            Region { start: constant, end: constant + 256, writable: false },
        ];
        Bench { space: Space::new(regions), start, constant }
    }

    fn dword(&self, index: usize) -> u32 {
        assert!(index < DWORDS);
        let pointer = std::ptr::with_exposed_provenance::<u32>(self.start as usize + 4 * index);
        // SAFETY: inside the leaked buffer.
        unsafe { pointer.read_volatile() }
    }

    fn set(&self, index: usize, value: u32) {
        assert!(index < DWORDS);
        let pointer = std::ptr::with_exposed_provenance_mut::<u32>(self.start as usize + 4 * index);
        // SAFETY: inside the leaked buffer.
        unsafe { pointer.write_volatile(value) }
    }

    fn with<T>(&self, processor: Processor, f: impl FnOnce(&mut Wave) -> T) -> T {
        let group = Group::new(&self.space, vec![0; 4096].into(), [0; 3]);
        let mut wave = Wave::new(processor, &group, 0, 0xdead_beef);
        wave.scratch = vec![0; 64 * LANES];
        wave.scratch_size = 64;
        wave.set_s64(2, self.start);
        f(&mut wave)
    }
}

/// Sets a register lane by lane.
fn fill(wave: &mut Wave, register: usize, f: impl Fn(usize) -> u32) {
    for lane in 0..LANES {
        wave.v[register].0[lane] = f(lane);
    }
}

/// Sets a pair of registers to 64-bit addresses.
fn fill64(wave: &mut Wave, register: usize, f: impl Fn(usize) -> u64) {
    fill(wave, register, |lane| f(lane) as u32);
    fill(wave, register + 1, |lane| (f(lane) >> 32) as u32);
}

fn go(wave: &mut Wave, f: Execute, inst: &Inst) {
    let flow = f(wave, inst);
    assert_eq!(flow, Flow::Next, "{:?}", wave.fault);
}

fn fault(wave: &mut Wave, f: Execute, inst: &Inst) -> Fault {
    assert_eq!(f(wave, inst), Flow::Fault);
    *wave.fault.take().expect("a fault says why")
}

/// Offsets of each shape that is treated on its own: side by side, strided, all the same, backwards, scattered, side by side
/// and the same in each row of 16 lanes.
const SHAPES: [fn(usize) -> u32; 7] = [
    |lane| 4 * lane as u32,
    |lane| 24 * lane as u32 + 8,
    |_lane| 64,
    |lane| 4 * (63 - lane as u32),
    |lane| 4 * (lane as u32 * 37 % 64),
    |lane| 4 * (lane as u32 & 15) + 72 * (lane as u32 >> 4),
    |lane| 76 * (lane as u32 >> 4),
];

const MASKS: [u64; 5] = [u64::MAX, 0x0000_ffff_ffff_0000, 1 << 63, 0x5555_0000_1234_8001, 0];

#[test]
fn loads_of_every_shape_and_mask_give_each_active_lane_its_dword() {
    let bench = Bench::new();
    for shape in SHAPES {
        for exec in MASKS {
            bench.with(Processor::Gfx942, |wave| {
                wave.set_exec(exec);
                fill(wave, 1, |lane| if exec >> lane & 1 != 0 { shape(lane) } else { 0x8000_0001 });
                fill64(
                    wave,
                    8,
                    |lane| if exec >> lane & 1 != 0 { bench.start + u64::from(shape(lane)) } else { 0 },
                );
                go(wave, global_load_dword, &inst(v(0), [v(1), NONE, NONE, s(2)], 8));
                go(wave, global_load_dword, &inst(v(2), [v(8), NONE, NONE, NONE], 8));
                go(wave, flat_load_dword, &inst(v(3), [v(8), NONE, NONE, NONE], 8));
                go(wave, global_load_dwordx3, &inst(v(4), [v(8), NONE, NONE, NONE], 0));
                for lane in 0..LANES {
                    let active = exec >> lane & 1 != 0;
                    let at = |dword: u32| if active { 1000 + shape(lane) / 4 + dword } else { 0xdead_beef };
                    for (register, dword) in [(0, 2), (2, 2), (3, 2), (4, 0), (5, 1), (6, 2)] {
                        assert_eq!(
                            wave.v[register].0[lane],
                            at(dword),
                            "lane {lane}, v{register}, {exec:#x}"
                        );
                    }
                }
            });
        }
    }
}

#[test]
fn stores_of_every_shape_and_mask_write_the_active_lanes_alone() {
    for (number, shape) in SHAPES.into_iter().enumerate() {
        for exec in MASKS {
            let bench = Bench::new();
            bench.with(Processor::Gfx942, |wave| {
                wave.set_exec(exec);
                fill(wave, 1, shape);
                fill(wave, 4, |lane| lane as u32);
                fill(wave, 5, |lane| 500 + lane as u32);
                let mut expected: Vec<u32> = (0..DWORDS as u32).map(|i| 1000 + i).collect();
                go(wave, global_store_dwordx2, &inst(NONE, [v(1), v(4), NONE, s(2)], 0));
                go(wave, global_store_dword, &inst(NONE, [v(1), v(4), NONE, s(2)], 2048));
                for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
                    let index = shape(lane) as usize / 4;
                    expected[index] = lane as u32;
                    expected[index + 1] = 500 + lane as u32;
                }
                for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
                    expected[shape(lane) as usize / 4 + 512] = lane as u32;
                }
                let found: Vec<u32> = (0..DWORDS).map(|index| bench.dword(index)).collect();
                assert_eq!(found, expected, "shape {number}, exec {exec:#x}");
            });
        }
    }
}

#[test]
fn bytes_and_halves_are_extended_or_merged() {
    let bench = Bench::new();
    bench.set(0, 0x9182_f384);
    bench.with(Processor::Gfx942, |wave| {
        fill(wave, 1, |_| 0);
        let mut load = |f: Execute, imm: i32| {
            wave.v[0] = Lanes::splat(0x1111_2222);
            go(wave, f, &inst(v(0), [v(1), NONE, NONE, s(2)], imm));
            wave.v[0].0[17]
        };
        assert_eq!(load(global_load_ubyte, 1), 0xf3);
        assert_eq!(load(global_load_sbyte, 1), 0xffff_fff3);
        assert_eq!(load(global_load_ushort, 2), 0x9182);
        assert_eq!(load(global_load_sshort, 1), 0xffff_82f3);
        assert_eq!(load(global_load_ubyte_d16, 0), 0x1111_0084);
        assert_eq!(load(global_load_ubyte_d16_hi, 0), 0x0084_2222);
        assert_eq!(load(global_load_sbyte_d16, 0), 0x1111_ff84);
        assert_eq!(load(global_load_sbyte_d16_hi, 3), 0xff91_2222);
        assert_eq!(load(global_load_short_d16, 0), 0x1111_f384);
        assert_eq!(load(global_load_short_d16_hi, 0), 0xf384_2222);

        wave.v[4] = Lanes::splat(0xaabb_ccdd);
        let mut store = |f: Execute| {
            bench.set(0, 0);
            go(wave, f, &inst(NONE, [v(1), v(4), NONE, s(2)], 1));
            bench.dword(0)
        };
        assert_eq!(store(global_store_byte), 0xdd00);
        assert_eq!(store(global_store_byte_d16_hi), 0xbb00);
        assert_eq!(store(global_store_short), 0xcc_dd00);
        assert_eq!(store(global_store_short_d16_hi), 0xaa_bb00);
    });
}

#[test]
fn addresses_that_a_kernel_may_not_use_say_where_they_are() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        fill(wave, 1, |lane| if lane == 40 { 4 * DWORDS as u32 + 100 } else { 4 * lane as u32 });
        let found = fault(wave, global_load_dword, &inst(v(0), [v(1), NONE, NONE, s(2)], 0));
        let Fault::Memory { lane: 40, does: Access::Read, bytes: 4, address, place } = found else {
            panic!("{found:?}")
        };
        assert_eq!(address, bench.start + 4 * DWORDS as u64 + 100);
        assert!(place.starts_with("100 bytes behind the end of the memory at"), "{place}");

        fill(wave, 1, |lane| 4 * (DWORDS - 62) as u32 + 4 * lane as u32);
        let found = fault(wave, global_store_dwordx2, &inst(NONE, [v(1), v(4), NONE, s(2)], -4)).to_string();
        assert!(found.starts_with("lane 62 writes 8 bytes at "), "{found}");
        assert!(found.contains("of which the last 4 are behind the end"), "{found}");

        fill64(wave, 8, |_| 16);
        let found = fault(wave, flat_load_dword, &inst(v(0), [v(8), NONE, NONE, NONE], 0)).to_string();
        assert!(found.contains("which is a null pointer"), "{found}");

        fill64(wave, 8, |_| bench.constant);
        go(wave, global_load_dword, &inst(v(0), [v(8), NONE, NONE, NONE], 0));
        assert_eq!(wave.v[0], Lanes::splat(7));
        let found = fault(wave, global_store_dword, &inst(NONE, [v(8), v(4), NONE, NONE], 0)).to_string();
        assert!(found.contains("may not write"), "{found}");

        fill(wave, 1, |_| 2);
        let found = fault(wave, global_atomic_add, &inst(NONE, [v(1), v(4), NONE, s(2)], 0));
        assert_eq!(found, Fault::Misaligned { lane: 0, address: bench.start + 2, needed: 4 });
        let found = fault(wave, global_load_dwordx4, &inst(v(253), [v(1), NONE, NONE, s(2)], 0));
        assert!(matches!(found, Fault::Illegal(_)), "{found}");
    });
}

#[test]
fn lanes_that_add_to_one_address_add_one_after_the_other() {
    let bench = Bench::new();
    bench.set(0, 5);
    bench.with(Processor::Gfx942, |wave| {
        wave.set_exec(0xff00);
        fill(wave, 1, |_| 0);
        fill(wave, 4, |lane| lane as u32);
        go(wave, global_atomic_add, &inst(v(0), [v(1), v(4), NONE, s(2)], 0));
        let sum: u32 = (8..16).sum();
        assert_eq!(bench.dword(0), 5 + sum);
        assert_eq!(wave.v[0].0[8], 5);
        assert_eq!(wave.v[0].0[15], 5 + sum - 15);
        assert_eq!(wave.v[0].0[0], 0xdead_beef);
    });
}

/// Runs an atomic of one lane on `old`; gives what memory holds then.
fn atomic(f: Execute, old: u64, data: [u32; 4]) -> u64 {
    let bench = Bench::new();
    bench.set(0, old as u32);
    bench.set(1, (old >> 32) as u32);
    bench.with(Processor::Gfx942, |wave| {
        wave.set_exec(1);
        fill(wave, 1, |_| 0);
        for (part, data) in data.into_iter().enumerate() {
            wave.v[4 + part] = Lanes::splat(data);
        }
        go(wave, f, &inst(v(10), [v(1), v(4), NONE, s(2)], 0));
        assert_eq!(wave.v[10].0[0], old as u32);
        u64::from(bench.dword(1)) << 32 | u64::from(bench.dword(0))
    })
}

#[test]
fn atomics_of_32_bits_leave_what_their_operation_says() {
    let one = |f, old: u32, data: u32| atomic(f, u64::from(old), [data, 0, 0, 0]) as u32;
    assert_eq!(one(global_atomic_swap, 1, 2), 2);
    assert_eq!(one(global_atomic_sub, 1, 2), u32::MAX);
    assert_eq!(one(global_atomic_smin, 1, u32::MAX), u32::MAX);
    assert_eq!(one(global_atomic_umin, 1, u32::MAX), 1);
    assert_eq!(one(global_atomic_smax, 1, u32::MAX), 1);
    assert_eq!(one(global_atomic_umax, 1, u32::MAX), u32::MAX);
    assert_eq!(one(global_atomic_and, 12, 10), 8);
    assert_eq!(one(global_atomic_or, 12, 10), 14);
    assert_eq!(one(global_atomic_xor, 12, 10), 6);
    assert_eq!(
        (one(global_atomic_inc, 4, 5), one(global_atomic_inc, 5, 5), one(global_atomic_inc, 9, 5)),
        (5, 0, 0)
    );
    assert_eq!(
        (one(global_atomic_dec, 4, 5), one(global_atomic_dec, 0, 5), one(global_atomic_dec, 9, 5)),
        (3, 5, 5)
    );
    assert_eq!(atomic(global_atomic_cmpswap, 4, [9, 4, 0, 0]), 9);
    assert_eq!(atomic(global_atomic_cmpswap, 5, [9, 4, 0, 0]), 5);
}

#[test]
fn atomics_of_64_bits_leave_what_their_operation_says() {
    let one = |f, old: u64, data: u64| atomic(f, old, [data as u32, (data >> 32) as u32, 0, 0]);
    let big = 1 << 40;
    assert_eq!(one(global_atomic_swap_x2, 1, big), big);
    assert_eq!(one(global_atomic_add_x2, u64::from(u32::MAX), 1), 1 << 32);
    assert_eq!(one(global_atomic_sub_x2, 0, 1), u64::MAX);
    assert_eq!(one(global_atomic_smin_x2, big, u64::MAX), u64::MAX);
    assert_eq!(one(global_atomic_umax_x2, big, 5), big);
    assert_eq!(one(global_atomic_inc_x2, big, big), 0);
    assert_eq!(one(global_atomic_dec_x2, 0, big), big);
    assert_eq!(atomic(global_atomic_cmpswap_x2, big, [1, 2, 0, 256]), 2 << 32 | 1);
    assert_eq!(atomic(global_atomic_cmpswap_x2, big, [1, 2, 1, 256]), big);
}

#[test]
fn float_atomics_round_to_nearest_even_and_keep_denormals() {
    let f32_ = |old: f32, data: f32| {
        f32::from_bits(
            atomic(global_atomic_add_f32, u64::from(old.to_bits()), [data.to_bits(), 0, 0, 0]) as u32
        )
    };
    assert_eq!(f32_(16777216.0, 1.0), 16777216.0);
    assert_eq!(f32_(16777216.0, 3.0), 16777220.0);
    assert_eq!(f32_(f32::from_bits(1), f32::from_bits(2)).to_bits(), 3);
    let nan = atomic(global_atomic_add_f32, 0x7f80_0000, [0xff80_0000, 0, 0, 0]);
    assert_eq!(nan, 0x7fc0_0000);
    assert_eq!(atomic(global_atomic_add_f32, 0x7f80_0001, [0, 0, 0, 0]), 0x7fc0_0001);

    let f64_ = |f, old: f64, data: f64| {
        let data = data.to_bits();
        f64::from_bits(atomic(f, old.to_bits(), [data as u32, (data >> 32) as u32, 0, 0]))
    };
    assert_eq!(f64_(global_atomic_add_f64, 0.1, 0.2), 0.1 + 0.2);
    assert_eq!(f64_(global_atomic_min_f64, 1.0, -1.0), -1.0);
    assert_eq!(f64_(global_atomic_max_f64, 1.0, f64::NAN), 1.0);

    // 1.0 + 2^-11 is a tie of float16 and goes to even; 2 + 2^-1 is exact.
    assert_eq!(atomic(global_atomic_pk_add_f16, 0x4000_3c00, [0x3800_1000, 0, 0, 0]), 0x4100_3c00);
    // 1.0 + 2^-8 is a tie of bfloat16; 1.5 + 2^-7 is exact; the sum of two denormals is one.
    assert_eq!(atomic(global_atomic_pk_add_bf16, 0x3fc0_3f80, [0x3c00_3b80, 0, 0, 0]), 0x3fc1_3f80);
    assert_eq!(atomic(global_atomic_pk_add_bf16, 0x0001, [0x0002, 0, 0, 0]), 0x0003);
}

#[test]
fn flat_addresses_reach_lds_and_scratch_through_their_apertures() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        let address = |lane: usize| match lane % 3 {
            0 => bench.start + 4 * lane as u64,
            1 => (u64::from(SHARED_APERTURE) << 32) + 4 * lane as u64,
            _ => (u64::from(PRIVATE_APERTURE) << 32) + 8,
        };
        fill64(wave, 8, address);
        fill(wave, 4, |lane| 70 + lane as u32);
        go(wave, flat_store_dword, &inst(NONE, [v(8), v(4), NONE, NONE], 4));
        for lane in 0..LANES {
            let lds = wave.group.with_lds(|lds| lds[4 * lane + 4]);
            match lane % 3 {
                0 => assert_eq!(bench.dword(lane + 1), 70 + lane as u32),
                1 => assert_eq!(u32::from(lds), 70 + lane as u32),
                _ => assert_eq!(u32::from(wave.scratch[64 * lane + 12]), 70 + lane as u32),
            }
        }
        go(wave, flat_load_dword, &inst(v(0), [v(8), NONE, NONE, NONE], 4));
        assert_eq!(wave.v[0], wave.v[4]);
        fill(wave, 4, |_| 1);
        go(wave, flat_atomic_add, &inst(NONE, [v(8), v(4), NONE, NONE], 4));
        go(wave, flat_load_dword, &inst(v(0), [v(8), NONE, NONE, NONE], 4));
        assert_eq!(wave.v[0].0, std::array::from_fn(|lane| 71 + lane as u32));
    });
}

#[test]
fn scratch_belongs_to_the_lane_and_ends() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        fill(wave, 4, |lane| lane as u32);
        fill(wave, 5, |lane| 2 * lane as u32);
        wave.s[20] = 16;
        go(wave, scratch_store_dwordx2, &inst(NONE, [NONE, v(4), NONE, s(20)], 8));
        fill(wave, 1, |lane| 4 * (lane as u32 & 1));
        go(wave, scratch_load_dword, &inst(v(0), [v(1), NONE, NONE, s(20)], 8));
        go(wave, scratch_load_ushort, &inst(v(2), [NONE, NONE, NONE, NONE], 28));
        assert_eq!(wave.v[0].0, std::array::from_fn(|lane| lane as u32 * (1 + (lane as u32 & 1))));
        assert_eq!(wave.v[2], wave.v[5]);
        let found = fault(wave, scratch_load_dwordx2, &inst(v(0), [NONE, NONE, NONE, s(20)], 44)).to_string();
        assert!(found.contains("the lane's scratch has 64 bytes"), "{found}");
        let found = fault(wave, scratch_load_dword, &inst(v(0), [NONE, NONE, NONE, NONE], -4));
        assert!(matches!(found, Fault::Memory { .. }), "{found}");
    });
}

#[test]
fn lds_is_read_and_written_in_all_widths() {
    let bench = Bench::new();
    bench.with(Processor::Gfx950, |wave| {
        for exec in [u64::MAX, 0x00ff_ff00_f0f0_0001] {
            wave.set_exec(exec);
            for register in 4..8 {
                fill(wave, register, |lane| 100 * register as u32 + lane as u32);
            }
            fill(wave, 1, |lane| 16 * lane as u32);
            for register in 10..14 {
                wave.v[register] = Lanes::splat(0xdead_beef);
            }
            go(wave, ds_write_b128, &inst(NONE, [v(1), v(4), NONE, NONE], 32));
            go(wave, ds_read_b96, &inst(v(10), [v(1), NONE, NONE, NONE], 36));
            for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
                let found: [u32; 3] = std::array::from_fn(|part| wave.v[10 + part].0[lane]);
                assert_eq!(found, [500, 600, 700].map(|base| base + lane as u32));
            }
            // Bytes 1 and 2 of the first dword as one half: unaligned accesses are allowed.
            go(wave, ds_read_u16, &inst(v(13), [v(1), NONE, NONE, NONE], 33));
            assert_eq!(wave.v[13].0[0], 400 >> 8);
        }
        wave.set_exec(u64::MAX);
        fill(wave, 1, |lane| 4 * lane as u32);
        go(wave, ds_write_b32, &inst(NONE, [v(1), v(4), NONE, NONE], 0));
        let pair = Inst { imm2: 3, ..inst(v(10), [v(1), NONE, NONE, NONE], 1) };
        fill(wave, 1, |lane| 4 * (lane as u32 & 15));
        go(wave, ds_read2_b32, &pair);
        assert_eq!((wave.v[10].0[18], wave.v[11].0[18]), (400 + 3, 400 + 5));
        let far = Inst { imm2: 2, ..inst(NONE, [v(1), v(4), v(5), NONE], 1) };
        fill(wave, 1, |_| 0);
        go(wave, ds_write2st64_b64, &far);
        // Data 0 is v4 and v5 at byte 512, data 1 is v5 and v6 at byte 1,024: the highest lane's stay.
        go(wave, ds_read_b64, &inst(v(10), [v(1), NONE, NONE, NONE], 1024));
        assert_eq!((wave.v[10].0[0], wave.v[11].0[0]), (563, 663));
        go(wave, ds_read_b64, &inst(v(10), [v(1), NONE, NONE, NONE], 512));
        assert_eq!((wave.v[10].0[0], wave.v[11].0[0]), (463, 563));
    });
}

/// The lowest lane's address is below zero until an offset is added.
fn from_below(lane: usize) -> u32 {
    (16 * lane as u32).wrapping_sub(64)
}

fn dwords_from_below(lane: usize) -> u32 {
    (4 * lane as u32).wrapping_sub(32)
}

/// Rows of 16 lanes, as tiles of matrix instructions have them.
fn in_rows(lane: usize) -> u32 {
    (80 * (lane & 15) + 16 * (lane >> 4)) as u32
}

#[test]
fn lds_of_every_shape_mask_and_width_is_each_lane_s() {
    const LOADS: [(Execute, Execute); 4] = [
        (ds_read_b32, flat_load_dword),
        (ds_read_b64, flat_load_dwordx2),
        (ds_read_b96, flat_load_dwordx3),
        (ds_read_b128, flat_load_dwordx4),
    ];
    const STORES: [(Execute, Execute); 4] = [
        (ds_write_b32, flat_store_dword),
        (ds_write_b64, flat_store_dwordx2),
        (ds_write_b96, flat_store_dwordx3),
        (ds_write_b128, flat_store_dwordx4),
    ];
    let bench = Bench::new();
    let shapes: Vec<fn(usize) -> u32> =
        SHAPES.into_iter().chain([in_rows as fn(usize) -> u32, from_below, dwords_from_below]).collect();
    let old: Vec<u8> = (0..1024_u32).flat_map(|i| (1000 + i).to_le_bytes()).collect();
    for (shape, exec, count) in shapes.iter().flat_map(|shape| {
        MASKS.into_iter().flat_map(move |exec| (1..=4).map(move |count| (*shape, exec, count)))
    }) {
        bench.with(Processor::Gfx950, |wave| {
            let active = |lane: usize| exec >> lane & 1 != 0;
            let dword = |lane: usize, part: usize| shape(lane).wrapping_add(64) as usize / 4 + part;
            // An address whose offset carries into the upper half is none of LDS.
            let flat = shape(0) < 1 << 31;
            for (which, execute) in [LOADS[count - 1].0, LOADS[count - 1].1].into_iter().enumerate() {
                if which == 1 && !flat {
                    continue;
                }
                // The address is in the first destination, which is also read by the others.
                wave.set_exec(exec);
                wave.group.with_lds(|lds| lds.copy_from_slice(&old));
                fill64(wave, 8, |lane| u64::from(SHARED_APERTURE) << 32 | u64::from(shape(lane)));
                go(wave, execute, &inst(v(8), [v(8), NONE, NONE, NONE], 64));
                for (lane, part) in (0..LANES).flat_map(|lane| (0..count).map(move |part| (lane, part))) {
                    if active(lane) {
                        let expected = 1000 + dword(lane, part) as u32;
                        assert_eq!(wave.v[8 + part].0[lane], expected, "lane {lane}, {part}, {exec:#x}");
                    } else if part == 0 {
                        assert_eq!(wave.v[8].0[lane], shape(lane), "lane {lane} is off, {exec:#x}");
                    }
                }
                let store = [STORES[count - 1].0, STORES[count - 1].1][which];
                fill64(wave, 8, |lane| u64::from(SHARED_APERTURE) << 32 | u64::from(shape(lane)));
                (0..count).for_each(|part| fill(wave, 30 + part, |lane| (lane + 100 * part) as u32));
                go(wave, store, &inst(NONE, [v(8), v(30), NONE, NONE], 64));
                let mut expected: Vec<u32> = (0..1024).map(|i| 1000 + i).collect();
                for (lane, part) in (0..LANES).flat_map(|lane| (0..count).map(move |part| (lane, part))) {
                    if active(lane) {
                        expected[dword(lane, part)] = (lane + 100 * part) as u32;
                    }
                }
                let expected: Vec<u8> = expected.into_iter().flat_map(u32::to_le_bytes).collect();
                wave.group.with_lds(|lds| assert!(*lds == *expected, "{which}, {count} dwords, {exec:#x}"));
            }
        });
    }
}

#[test]
fn two_addresses_of_lds_are_each_lane_s() {
    let bench = Bench::new();
    for shape in SHAPES.into_iter().chain([in_rows as fn(usize) -> u32, from_below, dwords_from_below]) {
        bench.with(Processor::Gfx950, |wave| {
            wave.group.with_lds(|lds| {
                (0_u32..)
                    .zip(lds.chunks_exact_mut(4))
                    .for_each(|(i, dword)| dword.copy_from_slice(&i.to_le_bytes()));
            });
            fill(wave, 1, shape);
            go(wave, ds_read2_b32, &Inst { imm2: 40, ..inst(v(10), [v(1), NONE, NONE, NONE], 16) });
            go(wave, ds_read2_b64, &Inst { imm2: 9, ..inst(v(12), [v(1), NONE, NONE, NONE], 8) });
            for lane in 0..LANES {
                let at = |bytes: u32| shape(lane).wrapping_add(bytes) / 4;
                let found: [u32; 6] = std::array::from_fn(|i| wave.v[10 + i].0[lane]);
                assert_eq!(found, [at(64), at(160), at(64), at(68), at(72), at(76)], "lane {lane}");
            }
        });
    }
}

#[test]
fn lds_ends_where_the_workgroup_s_does() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        fill(wave, 1, |lane| 4096 - 4 * 63 + 4 * lane as u32);
        let found = fault(wave, ds_read_b32, &inst(v(0), [v(1), NONE, NONE, NONE], 0));
        assert_eq!(
            found,
            Fault::Memory {
                lane: 63,
                does: Access::Read,
                bytes: 4,
                address: 4096,
                place: "and the workgroup's LDS has 4096 bytes".into()
            }
        );
        // A negative base and an offset meet in 32 bits.
        fill(wave, 1, |_| u32::MAX - 3);
        go(wave, ds_read_b32, &inst(v(0), [v(1), NONE, NONE, NONE], 8));
        let gds = Inst {
            memory: MemoryBits { gds: true, ..Default::default() },
            ..inst(v(0), [v(1), NONE, NONE, NONE], 8)
        };
        assert!(matches!(fault(wave, ds_read_b32, &gds), Fault::Illegal(_)));
    });
}

#[test]
fn waves_wait_at_a_barrier_of_the_grid_until_the_last_one_comes() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        let barrier = inst(NONE, [v(1), NONE, NONE, NONE], 3);
        wave.s[124] = 4 << 16;
        let found = fault(wave, ds_gws_barrier, &barrier).to_string();
        assert!(found.contains("uses a resource that nothing has initialised"), "{found}");
        // Resource 7 for two waves; the data is that of the first lane that is on, or of lane 0.
        fill(wave, 1, |lane| u32::from(lane == 5));
        wave.set_exec(1 << 5);
        go(wave, ds_gws_init, &barrier);
        wave.pc = 100;
        assert_eq!(ds_gws_barrier(wave, &barrier), Flow::Yield);
        assert_eq!(wave.pc, 100 - u64::from(barrier.size));
        let waiting = wave.ticket.take();
        // Another wave comes, which is this one without its ticket.
        go(wave, ds_gws_barrier, &barrier);
        wave.ticket = waiting;
        go(wave, ds_gws_barrier, &barrier);
        assert_eq!(wave.ticket, None);
        wave.set_exec(0);
        go(wave, ds_gws_init, &barrier);
        assert_eq!(ds_gws_sema_p(wave, &barrier), Flow::Yield);
        go(wave, ds_gws_sema_release_all, &barrier);
        go(wave, ds_gws_sema_p, &barrier);
        go(wave, ds_gws_sema_v, &barrier);
        go(wave, ds_gws_sema_p, &barrier);
    });
}

#[test]
fn a_register_offset_of_scratch_counts_64_bytes() {
    let bench = Bench::new();
    bench.with(Processor::Gfx950, |wave| {
        wave.set_s64(8, bench.start);
        wave.s[12] = 2;
        wave.s[16] = 0x1234_5678;
        go(wave, s_scratch_store_dword, &inst(NONE, [NONE, s(16), s(12), s(8)], 4));
        assert_eq!(bench.dword(132 / 4), 0x1234_5678);
        go(wave, s_scratch_load_dword, &inst(s(20), [NONE, NONE, s(12), s(8)], 4));
        assert_eq!(wave.s[20], 0x1234_5678);
        go(wave, s_load_dword, &inst(s(21), [NONE, NONE, NONE, s(8)], 132));
        assert_eq!(wave.s[21], 0x1234_5678);
    });
}

/// Runs a DS atomic of one lane on `old`; gives what LDS holds then.
fn lds_atomic(f: Execute, old: u64, data: [u32; 4], mode: u32) -> u64 {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        wave.set_exec(1 << 9);
        wave.mode.0 = mode;
        wave.group.with_lds(|lds| lds[16..24].copy_from_slice(&old.to_le_bytes()));
        fill(wave, 1, |_| 8);
        for (part, data) in data.into_iter().enumerate() {
            wave.v[4 + part] = Lanes::splat(data);
        }
        let second = if data[2] == 0 && data[3] == 0 { v(5) } else { v(6) };
        go(wave, f, &inst(v(10), [v(1), v(4), second, NONE], 8));
        assert_eq!(wave.v[10].0[9], old as u32);
        wave.group.with_lds(|lds| u64::from_le_bytes(lds[16..24].try_into().expect("eight bytes")))
    })
}

#[test]
fn lds_atomics_leave_what_their_operation_says() {
    let plain = 0x3f0;
    let one = |f, old: u64, data: [u32; 2]| lds_atomic(f, old, [data[0], data[1], 0, 0], plain);
    assert_eq!(one(ds_add_rtn_u32, 5, [3, 0]), 8);
    assert_eq!(one(ds_rsub_rtn_u32, 5, [3, 0]), u64::from(u32::MAX - 1));
    assert_eq!(one(ds_wrxchg_rtn_b32, 5, [3, 0]), 3);
    assert_eq!(one(ds_mskor_rtn_b32, 0xff, [0x0f, 0x100]), 0x1f0);
    assert_eq!(one(ds_cmpst_rtn_b32, 5, [5, 9]), 9);
    assert_eq!(one(ds_cmpst_rtn_b32, 5, [4, 9]), 5);
    assert_eq!(one(ds_cmpst_rtn_f32, 0x8000_0000, [0, 9]), 9);
    assert_eq!(one(ds_wrap_rtn_b32, 5, [3, 9]), 2);
    assert_eq!(one(ds_wrap_rtn_b32, 5, [6, 9]), 14);
    assert_eq!(one(ds_min_rtn_f32, 0x3f80_0000, [0xbf80_0000, 0]), 0xbf80_0000);
    assert_eq!(one(ds_max_rtn_f32, 0x3f80_0000, [0x7fc0_0000, 0]), 0x3f80_0000);
    assert_eq!(one(ds_min_rtn_i32, 1, [u32::MAX, 0]), u64::from(u32::MAX));
    assert_eq!(one(ds_max_rtn_u32, 1, [u32::MAX, 0]), u64::from(u32::MAX));
    assert_eq!(one(ds_add_rtn_u64, u64::MAX, [2, 0]), 1);
    assert_eq!(one(ds_condxchg32_rtn_b64, 7 << 32 | 7, [0x8000_0001, 5]), 7 << 32 | 1);
    assert_eq!(lds_atomic(ds_cmpst_rtn_b64, 5, [5, 0, 1, 2], plain), 2 << 32 | 1);
    assert_eq!(lds_atomic(ds_mskor_rtn_b64, u64::MAX, [0, 1, 2, 0], plain), !(1 << 32));

    // Denormals as MODE says: kept, or flushed on the way in and out.
    assert_eq!(one(ds_add_rtn_f32, 1, [2, 0]), 3);
    assert_eq!(lds_atomic(ds_add_rtn_f32, 1, [2, 0, 0, 0], 0x300), 0);
    assert_eq!(lds_atomic(ds_pk_add_rtn_f16, 1, [2, 0, 0, 0], 0x330), 0);
    assert_eq!(lds_atomic(ds_pk_add_rtn_f16, 1, [2, 0, 0, 0], plain), 3);
    let (half, one_f64) = (0.5f64.to_bits(), 1f64.to_bits());
    assert_eq!(one(ds_add_rtn_f64, half, [0, (half >> 32) as u32]), one_f64);
}

#[test]
fn exchanges_at_two_addresses_give_both_old_values() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        wave.set_exec(1);
        wave.group.with_lds(|lds| {
            lds[4] = 11;
            lds[12] = 22;
        });
        fill(wave, 1, |_| 0);
        fill(wave, 4, |_| 33);
        fill(wave, 5, |_| 44);
        // The result replaces the second data register.
        go(wave, ds_wrxchg2_rtn_b32, &Inst { imm2: 3, ..inst(v(5), [v(1), v(4), v(5), NONE], 1) });
        assert_eq!((wave.v[5].0[0], wave.v[6].0[0]), (11, 22));
        assert_eq!(wave.group.with_lds(|lds| (lds[4], lds[12])), (33, 44));
    });
}

#[test]
fn counters_in_lds_change_by_the_number_of_active_lanes() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        wave.s[usize::from(register::M0)] = 8;
        wave.set_exec(0x70f0);
        wave.group.with_lds(|lds| lds[24] = 10);
        go(wave, ds_append, &inst(v(0), [NONE; 4], 16));
        assert_eq!((wave.v[0].0[4], wave.v[0].0[0]), (10, 0xdead_beef));
        assert_eq!(wave.group.with_lds(|lds| lds[24]), 17);
        go(wave, ds_consume, &inst(v(0), [NONE; 4], 16));
        assert_eq!((wave.v[0].0[14], wave.group.with_lds(|lds| lds[24])), (17, 10));

        fill(wave, 4, |lane| 900 + lane as u32);
        go(wave, ds_write_addtid_b32, &inst(NONE, [NONE, v(4), NONE, NONE], 100));
        go(wave, ds_read_addtid_b32, &inst(v(0), [NONE; 4], 100));
        assert_eq!(wave.v[0].0[14], 914);
        assert_eq!(wave.group.with_lds(|lds| u16::from_le_bytes([lds[164], lds[165]])), 914);
    });
}

#[test]
fn lanes_exchange_registers_by_swizzle_and_permutation() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        fill(wave, 4, |lane| 100 + lane as u32);
        let mut swizzle = |pattern: i32| {
            go(wave, ds_swizzle_b32, &inst(v(0), [v(4), NONE, NONE, NONE], pattern));
            wave.v[0].0
        };
        // Exchange neighbours; broadcast lane 3 of each 32; reverse each four.
        assert_eq!(swizzle(0x041f), std::array::from_fn(|lane| 100 + (lane as u32 ^ 1)));
        assert_eq!(swizzle(3 << 5), std::array::from_fn(|lane| 103 + (lane as u32 & 32)));
        assert_eq!(swizzle(0x801b), std::array::from_fn(|lane| 100 + (lane as u32 ^ 3)));
        // Rotate by 1 to the left and to the right, in groups of 32 and of 8.
        assert_eq!(
            swizzle(0xc020),
            std::array::from_fn(|lane| 100 + ((lane as u32 & 31) + 1) % 32 + (lane as u32 & 32))
        );
        assert_eq!(swizzle(0xc438)[8], 100 + 15);
        // The first eight of bit-reversed order: 0, 16, 8, 24, 4, 20, 12, 28.
        assert_eq!(swizzle(0xe000)[..8], [100, 116, 108, 124, 104, 120, 112, 128]);
        assert_eq!(swizzle(0xe010)[..4], [100, 108, 104, 112]);

        fill(wave, 1, |lane| 4 * ((lane as u32 + 5) % 64));
        wave.set_exec(!(1 << 7));
        wave.v[0] = Lanes::splat(1);
        go(wave, ds_bpermute_b32, &inst(v(0), [v(1), v(4), NONE, NONE], 0));
        assert_eq!((wave.v[0].0[0], wave.v[0].0[2], wave.v[0].0[7], wave.v[0].0[60]), (105, 0, 1, 101));
        go(wave, ds_permute_b32, &inst(v(0), [v(1), v(4), NONE, NONE], 0));
        assert_eq!((wave.v[0].0[5], wave.v[0].0[12], wave.v[0].0[0]), (100, 0, 159));
        fill(wave, 1, |_| 256 + 4);
        go(wave, ds_permute_b32, &inst(v(0), [v(1), v(4), NONE, NONE], 0));
        assert_eq!((wave.v[0].0[1], wave.v[0].0[2]), (163, 0));
    });
}

#[test]
fn transposing_reads_give_each_lane_a_column() {
    let bench = Bench::new();
    bench.with(Processor::Gfx950, |wave| {
        // Four matrices, one for each 16 lanes, each with 16 columns; the element in row r, column c of matrix m
        // counts up from m * rows * 16.
        wave.group.with_lds(|lds| {
            for (index, pair) in lds.chunks_exact_mut(2).enumerate() {
                pair.copy_from_slice(&(index as u16).to_le_bytes());
            }
        });
        fill(wave, 20, |lane| 8 * lane as u32);
        go(wave, ds_read_b64_tr_b16, &inst(v(0), [v(20), NONE, NONE, NONE], 0));
        for lane in 0..LANES {
            let (matrix, column) = (lane as u32 / 16, lane as u32 % 16);
            let at = |row: u32| matrix * 64 + row * 16 + column;
            assert_eq!(wave.v[0].0[lane], at(0) | at(1) << 16);
            assert_eq!(wave.v[1].0[lane], at(2) | at(3) << 16);
        }
        wave.group.with_lds(|lds| (0..).zip(lds).for_each(|(index, byte)| *byte = (index % 251) as u8));
        go(wave, ds_read_b64_tr_b8, &inst(v(0), [v(20), NONE, NONE, NONE], 0));
        for lane in 0..LANES {
            let (matrix, column) = (lane as u32 / 16, lane as u32 % 16);
            let found = u64::from(wave.v[1].0[lane]) << 32 | u64::from(wave.v[0].0[lane]);
            let expected: [u8; 8] =
                std::array::from_fn(|row| ((matrix * 128 + row as u32 * 16 + column) % 251) as u8);
            assert_eq!(found.to_le_bytes(), expected);
        }
        go(wave, ds_read_b64_tr_b4, &inst(v(0), [v(20), NONE, NONE, NONE], 0));
        for lane in 0..LANES {
            let (matrix, column) = (lane / 16, lane % 16);
            for row in 0..16 {
                let byte = (8 * (16 * matrix + row) + column / 2) % 251;
                let found = wave.v[row / 8].0[lane] >> (4 * (row % 8)) & 15;
                assert_eq!(found, byte as u32 >> (4 * (column % 2)) & 15, "lane {lane}, row {row}");
            }
        }
        fill(wave, 20, |lane| 12 * lane as u32);
        go(wave, ds_read_b96_tr_b6, &inst(v(0), [v(20), NONE, NONE, NONE], 0));
        let bit_of = |bytes: &[u8], bit: usize| bytes[bit / 8] >> (bit % 8) & 1;
        let lds = wave.group.with_lds(|lds| lds.to_vec());
        for lane in 0..LANES {
            for bit in 0..96 {
                let (row, inner) = (bit / 6, bit % 6);
                let from = 8 * 12 * (lane / 16 * 16 + row) + 6 * (lane % 16) + inner;
                assert_eq!(
                    wave.v[bit / 32].0[lane] >> (bit % 32) & 1,
                    u32::from(bit_of(&lds, from)),
                    "bit {bit}"
                );
            }
        }
        wave.set_exec(1);
        assert!(matches!(
            fault(wave, ds_read_b64_tr_b16, &inst(v(0), [v(20), NONE, NONE, NONE], 0)),
            Fault::Uncovered { .. }
        ));
    });
}

#[test]
fn loads_into_lds_go_to_m0_lane_behind_lane() {
    let bench = Bench::new();
    for exec in [u64::MAX, 0x8000_0000_0000_0f01] {
        bench.with(Processor::Gfx950, |wave| {
            wave.set_exec(exec);
            wave.s[usize::from(register::M0)] = 256;
            fill(wave, 1, |lane| 4 * lane as u32);
            fill(wave, 6, |lane| 16 * lane as u32);
            let dword = |wave: &Wave, address: usize| {
                wave.group.with_lds(|lds| {
                    u32::from_le_bytes(lds[address..address + 4].try_into().expect("four bytes"))
                })
            };
            // The offset counts for both addresses.
            go(wave, global_load_lds_dword, &inst(NONE, [v(1), NONE, NONE, s(2)], 8));
            for lane in 0..LANES {
                let expected = if exec >> lane & 1 != 0 { 1002 + lane as u32 } else { 0 };
                assert_eq!(dword(wave, 264 + 4 * lane), expected);
            }
            go(wave, global_load_lds_dwordx4, &inst(NONE, [v(6), NONE, NONE, s(2)], 0));
            for lane in (0..LANES).filter(|lane| exec >> lane & 1 != 0) {
                assert_eq!(dword(wave, 256 + 16 * lane + 12), 1003 + 4 * lane as u32);
            }
            go(wave, global_load_lds_ushort, &inst(NONE, [v(6), NONE, NONE, s(2)], 0));
            assert_eq!(dword(wave, 256 + 4 * 8), if exec >> 8 & 1 != 0 { 1032 } else { 0 });
        });
    }
}

/// A raw buffer of `bytes` bytes in s[8:11].
fn raw(wave: &mut Wave, base: u64, bytes: u32) {
    wave.s[8] = base as u32;
    wave.s[9] = (base >> 32) as u32;
    wave.s[10] = bytes;
    wave.s[11] = 0x0002_7000;
}

fn offen(inst: Inst) -> Inst {
    Inst { memory: MemoryBits { offen: true, ..Default::default() }, ..inst }
}

#[test]
fn raw_buffers_clamp_at_num_records_dword_by_dword() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        raw(wave, bench.start, 4 * 66);
        wave.s[12] = 8;
        fill(wave, 1, |lane| 4 * lane as u32);
        let soffset = |imm| offen(inst(v(0), [v(1), NONE, s(12), s(8)], imm));
        go(wave, buffer_load_dword, &soffset(0));
        assert_eq!(wave.v[0].0, std::array::from_fn(|lane| 1002 + lane as u32));
        assert_eq!(wave.group.clamped.get(), Clamped::default());
        // 68 dwords are asked for, 66 are there: the last two lanes get zero.
        go(wave, buffer_load_dword, &soffset(8));
        assert_eq!((wave.v[0].0[61], wave.v[0].0[62], wave.v[0].0[63]), (1065, 0, 0));
        assert_eq!(wave.group.clamped.get(), Clamped { loads: 2, stores: 0 });
        go(wave, buffer_load_dwordx2, &soffset(0));
        assert_eq!((wave.v[0].0[63], wave.v[1].0[63], wave.v[1].0[62]), (1065, 0, 1065));

        fill(wave, 1, |lane| 4 * lane as u32);
        fill(wave, 4, |_| 1);
        go(wave, buffer_store_dword, &offen(inst(NONE, [v(1), v(4), s(12), s(8)], 8)));
        assert_eq!((bench.dword(65), bench.dword(66), bench.dword(67)), (1, 1066, 1067));
        assert_eq!(wave.group.clamped.get().stores, 2);
        fill(wave, 1, |_| 4 * 66);
        go(wave, buffer_atomic_add, &offen(inst(v(0), [v(1), v(4), Operand::Constant(0), s(8)], 0)));
        assert_eq!((wave.v[0].0[5], bench.dword(66)), (0, 1066));

        // An offset that marks a masked lane, far out.
        fill(wave, 1, |lane| if lane < 3 { 0 } else { 0x8000_0000 });
        go(wave, buffer_load_ubyte, &soffset(0));
        assert_eq!((wave.v[0].0[2], wave.v[0].0[3]), (1002 & 0xff, 0));
        // Without a vector offset all lanes read the same.
        go(wave, buffer_load_dword, &inst(v(0), [NONE, NONE, s(12), s(8)], 4));
        assert_eq!(wave.v[0], Lanes::splat(1003));
        // Past the resource's range, but not past num_records: an error, not a clamp.
        raw(wave, bench.start, u32::MAX);
        fill(wave, 1, |_| 4 * DWORDS as u32);
        assert!(matches!(fault(wave, buffer_load_dword, &soffset(0)), Fault::Memory { .. }));
    });
}

#[test]
fn structured_buffers_check_the_index() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        raw(wave, bench.start, 10);
        wave.s[9] |= 24 << 16;
        let both = MemoryBits { offen: true, idxen: true, ..Default::default() };
        fill(wave, 1, |lane| lane as u32);
        fill(wave, 2, |_| 8);
        let load = Inst { memory: both, ..inst(v(0), [v(1), NONE, Operand::Constant(0), s(8)], 4) };
        go(wave, buffer_load_dword, &load);
        assert_eq!((wave.v[0].0[9], wave.v[0].0[10]), (1000 + 9 * 6 + 3, 0));
        assert_eq!(wave.group.clamped.get().loads, 54);

        // Swizzled: index stride 16, elements of 4 bytes. Index 17, offset 12: (1 * 24 + 12) * 16 + 1 * 4.
        wave.s[9] |= 1 << 31;
        wave.s[10] = 64;
        wave.s[11] |= 1 << 21;
        go(wave, buffer_load_dword, &load);
        assert_eq!(wave.v[0].0[17], 1000 + ((24 + 12) * 16 + 4) / 4);

        // The lane's number as the index, without one in the instruction.
        raw(wave, bench.start, 64);
        wave.s[9] |= 8 << 16;
        wave.s[11] = 1 << 23;
        go(wave, buffer_load_dword, &inst(v(0), [NONE, NONE, Operand::Constant(0), s(8)], 4));
        assert_eq!(wave.v[0].0[20], 1000 + 41);
    });
}

#[test]
fn buffer_loads_into_lds_write_zero_where_they_are_clamped() {
    let bench = Bench::new();
    bench.with(Processor::Gfx950, |wave| {
        raw(wave, bench.start, 4 * 250);
        wave.group.with_lds(|lds| lds.fill(0xee));
        wave.s[usize::from(register::M0)] = 0;
        fill(wave, 1, |lane| 16 * lane as u32);
        let memory = MemoryBits { offen: true, lds: true, ..Default::default() };
        let load = Inst { memory, ..inst(NONE, [v(1), NONE, Operand::Constant(0), s(8)], 0) };
        go(wave, buffer_load_dwordx4, &load);
        let dwords: Vec<u32> = wave.group.with_lds(|lds| {
            lds.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().expect("four bytes"))).collect()
        });
        let expected: Vec<u32> = (0..256).map(|i| if i < 250 { 1000 + i } else { 0 }).collect();
        assert_eq!(dwords[..256], expected);
        assert_eq!(dwords[256], 0xeeee_eeee);
    });
}

#[test]
fn scalar_loads_ignore_the_lowest_bits_and_clamp_in_buffers() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        wave.s[4] = 18;
        go(wave, s_load_dwordx4, &inst(s(20), [NONE, NONE, s(4), s(2)], 9));
        assert_eq!(wave.s[20..24], [1006, 1007, 1008, 1009]);
        go(wave, s_load_dwordx2, &inst(s(2), [NONE, NONE, NONE, s(2)], 4));
        assert_eq!(wave.s[2..4], [1001, 1002]);
        raw(wave, bench.start, 20);
        go(wave, s_buffer_load_dwordx8, &inst(s(20), [NONE, NONE, NONE, s(8)], 8));
        assert_eq!(wave.s[20..28], [1002, 1003, 1004, 0, 0, 0, 0, 0]);
        assert_eq!(wave.group.clamped.get().loads, 5);
        wave.set_s64(2, bench.start);
        let found = fault(wave, s_load_dword, &inst(s(20), [NONE, NONE, NONE, s(2)], -4)).to_string();
        assert!(found.contains("4 bytes before the start"), "{found}");
        wave.set_s64(20, 5 << 32 | 77);
        go(wave, s_store_dwordx2, &inst(NONE, [NONE, s(20), NONE, s(2)], 0));
        assert_eq!((bench.dword(0), bench.dword(1)), (77, 5));
        go(wave, s_atomic_add, &inst(s(20), [NONE, s(20), NONE, s(2)], 0));
        assert_eq!((wave.s[20], bench.dword(0)), (77, 154));
        wave.set_s64(20, 154 << 32 | 9);
        go(wave, s_atomic_cmpswap, &inst(NONE, [NONE, s(20), NONE, s(2)], 0));
        assert_eq!(bench.dword(0), 9);
        go(wave, s_memtime, &inst(s(30), [NONE; 4], 0));
        let first = wave.s64(30);
        go(wave, s_memrealtime, &inst(s(30), [NONE; 4], 0));
        assert!(wave.s64(30) > first);
    });
}

/// Data and number formats of gfx9.
const FORMAT_8_8: u8 = 3;
const FORMAT_16_16: u8 = 5;
const FORMAT_8_8_8_8: u8 = 10;
const FORMAT_32_32: u8 = 11;
const UNORM: u8 = 0;
const SNORM: u8 = 1;
const SSCALED: u8 = 3;
const UINT: u8 = 4;
const SINT: u8 = 5;
const FLOAT: u8 = 7;

#[test]
fn typed_loads_convert_each_component() {
    let bench = Bench::new();
    bench.set(0, 0x80ff_7f01);
    bench.set(1, 0x3555_c000);
    bench.with(Processor::Gfx942, |wave| {
        raw(wave, bench.start, 4096);
        let mut load = |f: Execute, data: u8, number: u8, imm: i32| {
            for register in 0..4 {
                wave.v[register] = Lanes::splat(0x1111_1111);
            }
            let memory = MemoryBits { format: data | number << 4, ..Default::default() };
            go(wave, f, &Inst { memory, ..inst(v(0), [NONE, NONE, Operand::Constant(0), s(8)], imm) });
            [0, 1, 2, 3].map(|register| wave.v[register].0[9])
        };
        let floats = |values: [f32; 4]| values.map(f32::to_bits);
        assert_eq!(load(tbuffer_load_format_xyzw, FORMAT_8_8_8_8, UINT, 0), [1, 0x7f, 0xff, 0x80]);
        assert_eq!(
            load(tbuffer_load_format_xyzw, FORMAT_8_8_8_8, SINT, 0),
            [1, 0x7f, u32::MAX, -128i32 as u32]
        );
        assert_eq!(
            load(tbuffer_load_format_xyzw, FORMAT_8_8_8_8, UNORM, 0),
            floats([1.0 / 255.0, 127.0 / 255.0, 1.0, 128.0 / 255.0])
        );
        assert_eq!(
            load(tbuffer_load_format_xyzw, FORMAT_8_8_8_8, SNORM, 0),
            floats([1.0 / 127.0, 1.0, -1.0 / 127.0, -1.0])
        );
        assert_eq!(
            load(tbuffer_load_format_xyzw, FORMAT_8_8_8_8, SSCALED, 0),
            floats([1.0, 127.0, -1.0, -128.0])
        );
        // What the format lacks is zero, and one for the fourth.
        assert_eq!(load(tbuffer_load_format_xyzw, FORMAT_8_8, UINT, 0), [1, 0x7f, 0, 1]);
        assert_eq!(load(tbuffer_load_format_xy, FORMAT_16_16, FLOAT, 4)[0], (-2f32).to_bits());
        assert_eq!(
            load(tbuffer_load_format_d16_xy, FORMAT_16_16, FLOAT, 4),
            [0x3555_c000, 0x1111_1111, 0x1111_1111, 0x1111_1111]
        );
        assert_eq!(
            load(tbuffer_load_format_d16_xyz, FORMAT_8_8_8_8, SINT, 0)[..2],
            [0x007f_0001, 0x1111_ffff]
        );
        assert_eq!(
            load(tbuffer_load_format_x, FORMAT_32_32, FLOAT, 4),
            [0x3555_c000, 0x1111_1111, 0x1111_1111, 0x1111_1111]
        );
        let odd = MemoryBits { format: 6 | FLOAT << 4, ..Default::default() };
        let odd = Inst { memory: odd, ..inst(v(0), [NONE, NONE, Operand::Constant(0), s(8)], 0) };
        let found = fault(wave, tbuffer_load_format_x, &odd).to_string();
        assert!(found.contains("10_11_11, FLOAT"), "{found}");
    });
}

#[test]
fn untyped_formats_come_from_the_resource_with_its_selection() {
    let bench = Bench::new();
    bench.set(0, 0x80ff_7f01);
    bench.with(Processor::Gfx942, |wave| {
        raw(wave, bench.start, 4);
        // 8_8_8_8 UINT; x from the third, y zero, z one, w from the first.
        wave.s[11] = u32::from(FORMAT_8_8_8_8) << 15 | u32::from(UINT) << 12 | 6 | 1 << 6 | 4 << 9;
        go(wave, buffer_load_format_xyzw, &inst(v(0), [NONE, NONE, Operand::Constant(0), s(8)], 0));
        assert_eq!([0, 1, 2, 3].map(|register| wave.v[register].0[0]), [0xff, 0, 1, 1]);
        wave.v[0] = Lanes::splat(0x1111_2222);
        go(wave, buffer_load_format_d16_hi_x, &inst(v(0), [NONE, NONE, Operand::Constant(0), s(8)], 0));
        assert_eq!(wave.v[0].0[0], 0x00ff_2222);
        // Out of range: zero, but for what is one by selection.
        go(wave, buffer_load_format_xyzw, &inst(v(0), [NONE, NONE, Operand::Constant(0), s(8)], 4));
        assert_eq!([0, 1, 2, 3].map(|register| wave.v[register].0[0]), [0, 0, 1, 0]);
    });
}

#[test]
fn typed_stores_write_what_has_one_right_answer() {
    let bench = Bench::new();
    bench.with(Processor::Gfx942, |wave| {
        raw(wave, bench.start, 4096);
        let store = |data: u8, number: u8| {
            let memory = MemoryBits { format: data | number << 4, ..Default::default() };
            Inst { memory, ..inst(NONE, [NONE, v(4), Operand::Constant(0), s(8)], 0) }
        };
        for (register, value) in [(4, 1), (5, 2), (6, 0xff), (7, 4)] {
            wave.v[register] = Lanes::splat(value);
        }
        go(wave, tbuffer_store_format_xyzw, &store(FORMAT_8_8_8_8, UINT));
        assert_eq!(bench.dword(0), 0x04ff_0201);
        assert!(matches!(
            fault(wave, tbuffer_store_format_xyzw, &store(FORMAT_8_8_8_8, SINT)),
            Fault::Uncovered { .. }
        ));
        assert!(matches!(
            fault(wave, tbuffer_store_format_xy, &store(FORMAT_8_8_8_8, UINT)),
            Fault::Uncovered { .. }
        ));
        wave.v[4] = Lanes::splat((-2f32).to_bits());
        wave.v[5] = Lanes::splat(0.25f32.to_bits());
        go(wave, tbuffer_store_format_xy, &store(FORMAT_16_16, FLOAT));
        assert_eq!(bench.dword(0), 0x3400_c000);
        wave.v[4] = Lanes::splat(0xbeef_cafe);
        go(wave, tbuffer_store_format_d16_xy, &store(FORMAT_16_16, FLOAT));
        assert_eq!(bench.dword(0), 0xbeef_cafe);
        wave.v[5] = Lanes::splat(0.1f32.to_bits());
        let found = fault(wave, tbuffer_store_format_xy, &store(FORMAT_16_16, FLOAT)).to_string();
        assert!(found.contains("does not fit Float of 16 bits exactly"), "{found}");
    });
}
