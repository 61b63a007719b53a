//! Writes which instructions of gfx942 and gfx950 the emulator executes, as Markdown: `src/emulator/coverage.md`.
//!
//! Nothing here lists instructions. Each row of the table is encoded in many ways, decoded and executed on a wave: what
//! always ends in [`Fault::Uncovered`] is not covered, and what always ends in [`Fault::Illegal`] is nothing that a kernel
//! may execute. `coverage --check FILE` compares a file with what would be written.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use accuracy_core::emulator::fidelity::row_is_modelled;
use accuracy_core::emulator::global_sync::RESOURCES;
use accuracy_core::emulator::isa::{Encoding, Processor, Role, Row, decode, table};
use accuracy_core::emulator::memory::{Group, Region, Space};
use accuracy_core::emulator::wave::{Fault, Flow, Lanes, Wave};

const PROCESSORS: [Processor; 2] = [Processor::Gfx942, Processor::Gfx950];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = markdown();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        ["--check", file] => match std::fs::read_to_string(file) {
            Ok(there) if there == text => ExitCode::SUCCESS,
            Ok(_) => {
                eprintln!(
                    "coverage: {file} is not what the executor says: write it again, \
                     cargo run -p accuracy-core --features emulate --example coverage > {file}"
                );
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("coverage: {file}: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: coverage [--check FILE]");
            ExitCode::FAILURE
        }
    }
}

/// How the emulator executes an instruction of one processor.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Coverage {
    /// The processor does not have it.
    Absent,
    /// `in_part`: some forms are not covered.
    Exact {
        in_part: bool,
    },
    Modelled {
        in_part: bool,
    },
    /// No kernel may execute it: the emulator's message.
    Refused(String),
    /// The emulator does not execute it: the emulator's message.
    NotCovered(String),
}

impl Coverage {
    fn words(&self) -> &'static str {
        match self {
            Coverage::Absent => "-",
            Coverage::Exact { in_part: false } => "exact",
            Coverage::Exact { in_part: true } => "exact, in part",
            Coverage::Modelled { in_part: false } => "modelled",
            Coverage::Modelled { in_part: true } => "modelled, in part",
            Coverage::Refused(_) => "refused",
            Coverage::NotCovered(_) => "not covered",
        }
    }
}

/// Random numbers that depend on the instruction alone, so that a new row changes no other.
struct Random(u64);

impl Random {
    fn new(processor: Processor, mnemonic: &str) -> Random {
        let bytes = processor.name().bytes().chain(mnemonic.bytes());
        Random(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }

    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 != 0
    }

    /// Zero or a vector register that begins a group of any size.
    fn register_or_none(&mut self) -> u32 {
        if self.coin() { self.next() % 8 * 32 } else { 0 }
    }

    /// A source of 9 bits: a group of vector registers, of scalar ones, or a constant.
    fn source(&mut self) -> u32 {
        match self.next() % 4 {
            0 => self.scalar(),
            1 => 128 + self.next() % 16,
            _ => 256 + self.next() % 8 * 32,
        }
    }

    fn scalar(&mut self) -> u32 {
        self.next() % 5 * 16
    }

    /// Few bits, many or none.
    fn noise(&mut self) -> u32 {
        match self.next() % 4 {
            0 => self.next(),
            1 => self.next() & self.next() & self.next(),
            _ => 0,
        }
    }
}

/// Machine code that may be the instruction: fields that name registers are likely ones, the others anything.
fn code(row: &Row, random: &mut Random) -> [u32; 4] {
    let opcode = u32::from(row.opcode);
    let (low_noise, high_noise) = (random.noise(), random.noise());
    let sources = |random: &mut Random| random.source() | random.source() << 9 | random.source() << 18;
    let scalars = |random: &mut Random| random.source() & 0xff | (random.source() & 0xff) << 8;
    let mut words = [random.next(), random.next(), random.next(), random.next()];
    match row.encoding {
        Encoding::Sop1 => {
            words[0] = 0xbe80_0000 | random.scalar() << 16 | opcode << 8 | scalars(random) & 0xff;
        }
        Encoding::Sop2 => words[0] = 0x8000_0000 | opcode << 23 | random.scalar() << 16 | scalars(random),
        Encoding::Sopk => {
            // The low bits name a hardware register, of which the first ones are the usual ones.
            let immediate = if random.coin() { low_noise } else { random.next() % 8 };
            words[0] = 0xb000_0000 | opcode << 23 | random.scalar() << 16 | immediate & 0xffff;
        }
        Encoding::Sopc => words[0] = 0xbf00_0000 | opcode << 16 | scalars(random),
        Encoding::Sopp => words[0] = 0xbf80_0000 | opcode << 16 | low_noise & 0xffff,
        Encoding::Smem => {
            let has_base = u32::from(row.operands.iter().any(|slot| slot.role == Role::Base)) << 17;
            words[0] = 0xc000_0000 | opcode << 18 | has_base | low_noise & 0x1_4000;
            words[0] |= (random.scalar() << 6) | (random.scalar() / 2);
            words[1] = high_noise & 0xfff | random.scalar() << 25;
        }
        Encoding::Vop1 => {
            words[0] = 0x7e00_0000 | random.register_or_none() << 17 | opcode << 9 | random.source();
        }
        Encoding::Vop2 | Encoding::Vopc => {
            let start = if row.encoding == Encoding::Vopc {
                0x7c00_0000 | opcode << 17
            } else {
                opcode << 25 | random.register_or_none() << 17
            };
            words[0] = start | random.register_or_none() << 9 | random.source();
        }
        Encoding::Vop3 | Encoding::Vop3b => {
            let destination = if random.coin() { random.register_or_none() } else { random.scalar() };
            let mask =
                if row.encoding == Encoding::Vop3b { random.scalar() << 8 } else { low_noise & 0xff00 };
            words[0] = 0xd000_0000 | opcode << 16 | destination | mask;
            let third = if random.coin() { 0x7ff_ffff } else { 0x3_ffff };
            words[1] = sources(random) & third | high_noise & 0xf800_0000;
        }
        Encoding::Vop3p | Encoding::Mai => {
            words[0] = 0xd380_0000 | opcode << 16 | random.register_or_none() | low_noise & 0xff00;
            let third = if random.coin() { 0x7ff_ffff } else { 0x3_ffff };
            words[1] = sources(random) & if random.coin() { 0x1ff } else { third } | high_noise & 0xf800_0000;
        }
        Encoding::Vop3px2 => {
            words[0] = 0xd3ac_0000 | low_noise & 0x1800;
            words[1] = sources(random) & 0x3_ffff | 0x2_0100 | high_noise & 0x1800_0000;
            words[2] = 0xd380_0800 | opcode << 16 | random.register_or_none() | low_noise & 0x8700;
            words[3] = sources(random) | high_noise & 0xf800_0000;
        }
        Encoding::Ds => {
            words[0] = 0xd800_0000 | opcode << 17 | low_noise & 0x201_ffff;
            if row.operands.is_empty() && random.coin() {
                words[0] &= !0x201_ffff;
            }
            words[0] |= u32::from(random.coin()) << 16;
            words[1] = random.register_or_none() | random.register_or_none() << 8;
            words[1] |= random.register_or_none() << 16 | random.register_or_none() << 24;
        }
        Encoding::Flat | Encoding::Global | Encoding::Scratch => {
            let (segment, base) = match row.encoding {
                Encoding::Flat => (0, 0),
                Encoding::Scratch => (1, if random.coin() { 0x7f } else { random.scalar() }),
                _ => (2, if random.coin() { 0x7f } else { random.scalar() }),
            };
            words[0] = 0xdc00_0000 | opcode << 18 | segment << 14 | low_noise & 0x203_0fff;
            words[1] = random.register_or_none() | random.register_or_none() << 8;
            words[1] |= base << 16 | high_noise & 1 << 23 | random.register_or_none() << 24;
        }
        Encoding::Mubuf | Encoding::Mtbuf => {
            words[0] = match row.encoding {
                Encoding::Mubuf => 0xe000_0000 | opcode << 18 | low_noise & 0x3_ffff,
                _ => 0xe800_0000 | opcode << 15 | low_noise & 0x7fff | (random.next() & 0x7f) << 19,
            };
            words[1] = random.register_or_none() | random.register_or_none() << 8;
            words[1] |= (random.scalar() / 4) << 16 | high_noise & 0x60_0000 | 128 << 24;
        }
    }
    words
}

/// Where the memory lies that instructions may use: always at the same place, so that every run gives the same text.
const MEMORY: usize = 0x20_0000_0000;
const MEMORY_BYTES: usize = 1 << 16;

/// Maps that memory.
fn map() {
    // SAFETY: an anonymous mapping at an address at which nothing is; otherwise it fails.
    let address = unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(MEMORY),
            MEMORY_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    assert_eq!(address.expose_provenance(), MEMORY, "there is memory at {MEMORY:#x} already");
}

/// How often each instruction is executed.
const EXECUTED: u32 = 96;
/// Encodings that are tried at the most.
const TRIED: u32 = 20_000;

/// The registers of a wave: plain ones hold addresses of the memory, and resources of buffers in it.
fn fill(wave: &mut Wave, random: &mut Random) {
    let plain = random.coin();
    // The components in their order, and any format.
    let format = 4 | 5 << 3 | 6 << 6 | 7 << 9 | (random.next() & 0x7f) << 12;
    let resource = [MEMORY as u32, (MEMORY >> 32) as u32, MEMORY_BYTES as u32, format];
    for (index, register) in wave.s.iter_mut().enumerate().take(104) {
        *register = if plain { resource[index % 4] } else { random.next() };
    }
    for (index, register) in wave.v.iter_mut().enumerate() {
        *register = Lanes::splat(if plain { resource[index % 2] } else { random.next() });
    }
}

/// Executes an instruction in many forms.
fn coverage(processor: Processor, row: &'static Row) -> Coverage {
    if !row.processors.have(processor) {
        return Coverage::Absent;
    }
    let start = MEMORY as u64;
    let region = Region { start, end: start + MEMORY_BYTES as u64, writable: true };
    let space = Space::new(vec![region]);
    let group = Group::new(&space, vec![0; 4096].into(), [0; 3]);
    let mut random = Random::new(processor, row.mnemonic);
    let (mut executed, mut covered) = (0, false);
    let (mut uncovered, mut illegal) = (None, None);
    for _ in 0..TRIED {
        let bytes: Vec<u8> = code(row, &mut random).iter().flat_map(|word| word.to_le_bytes()).collect();
        let Ok(inst) = decode(processor, &bytes) else { continue };
        // The bytes can be another instruction: some have an opcode of their own for the long form.
        if inst.row.mnemonic != row.mnemonic {
            continue;
        }
        (0..RESOURCES).for_each(|resource| space.sync.initialise(resource, 1));
        let mut wave = Wave::new(processor, &group, 0, 0);
        fill(&mut wave, &mut random);
        wave.pc = 0x1000;
        match ((inst.execute)(&mut wave, &inst), wave.fault.as_deref()) {
            (Flow::Fault, Some(fault @ Fault::Uncovered { mnemonic, .. })) if *mnemonic == row.mnemonic => {
                uncovered.get_or_insert_with(|| fault.to_string());
            }
            // A source is not covered that every instruction may have.
            (Flow::Fault, Some(Fault::Uncovered { .. })) => continue,
            (Flow::Fault, Some(fault @ Fault::Illegal(_))) => {
                illegal.get_or_insert_with(|| fault.to_string());
            }
            _ => covered = true,
        }
        executed += 1;
        if executed == EXECUTED {
            break;
        }
    }
    assert!(executed > 0, "no encoding of {} was found for {processor}", row.mnemonic);
    let in_part = uncovered.is_some();
    match (covered, uncovered) {
        (true, _) if row_is_modelled(processor, row) => Coverage::Modelled { in_part },
        (true, _) => Coverage::Exact { in_part },
        (false, Some(reason)) => Coverage::NotCovered(reason),
        (false, None) => Coverage::Refused(illegal.unwrap_or_default()),
    }
}

fn markdown() -> String {
    map();
    let lines: Vec<(&Row, [Coverage; 2])> =
        table::all().map(|row| (row, PROCESSORS.map(|processor| coverage(processor, row)))).collect();
    let mut text = String::from(
        "# Instructions of the emulator\n\n\
         Written by `cargo run -p accuracy-core --features emulate --example coverage`, which encodes and executes every \
         instruction of\nthe table.\n\n\
         - *exact*: the result is what AMD documents, bit for bit.\n\
         - *modelled*: AMD bounds the result by an error or does not document it; a device may give another one.\n\
         - *in part*: in some forms, as with some formats of a buffer, the emulator ends the kernel and says which.\n\
         - *refused*: no kernel may execute it, and the emulator says so.\n\n\
         | processor | instructions | exact | modelled | refused | not covered |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for (index, processor) in PROCESSORS.into_iter().enumerate() {
        let count = |what: fn(&Coverage) -> bool| lines.iter().filter(|(_, each)| what(&each[index])).count();
        let _ = writeln!(
            text,
            "| {processor} | {} | {} | {} | {} | {} |",
            lines.len() - count(|c| *c == Coverage::Absent),
            count(|c| matches!(c, Coverage::Exact { .. })),
            count(|c| matches!(c, Coverage::Modelled { .. })),
            count(|c| matches!(c, Coverage::Refused(_))),
            count(|c| matches!(c, Coverage::NotCovered(_))),
        );
    }
    let reasons = |heading: &str, reason: fn(&Coverage) -> Option<&String>| {
        let found: BTreeSet<(&str, &str)> = lines
            .iter()
            .flat_map(|(row, each)| each.iter().filter_map(|c| Some((row.mnemonic, reason(c)?.as_str()))))
            .collect();
        let rows: String = found.iter().map(|(name, why)| format!("| `{name}` | {why} |\n")).collect();
        let head = "| instruction | what the emulator says |\n| --- | --- |\n";
        if found.is_empty() { String::new() } else { format!("\n## {heading}\n\n{head}{rows}") }
    };
    text += &reasons("Not covered", |c| if let Coverage::NotCovered(why) = c { Some(why) } else { None });
    text += &reasons("Refused", |c| if let Coverage::Refused(why) = c { Some(why) } else { None });
    text += "\n## All\n\n| instruction | encoding | gfx942 | gfx950 |\n| --- | --- | --- | --- |\n";
    for (row, [gfx942, gfx950]) in &lines {
        let (encoding, gfx942, gfx950) = (row.encoding, gfx942.words(), gfx950.words());
        let _ = writeln!(text, "| `{}` | {encoding:?} | {gfx942} | {gfx950} |", row.mnemonic);
    }
    text
}
