//! Runs single instructions of AMD's machine code on states that its standard input gives, for `.ci/semantics.py`.
//!
//! `.ci/semantics/machine.py` describes both formats. Each request is a state and one instruction; its answer is the
//! state afterwards, or the fault as text.

use std::cell::UnsafeCell;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::process::ExitCode;

use accuracy_core::emulator::isa::{Processor, decode};
use accuracy_core::emulator::memory::{Group, PRIVATE_APERTURE, Region, SHARED_APERTURE, Space};
use accuracy_core::emulator::wave::{Flow, LANES, Lanes, Mode, Wave};

/// Address that each instruction has.
const CODE: u64 = 0x7000_0000_0000;
/// Bytes of the window for global memory.
const WINDOW: usize = 1 << 16;
/// Bytes on both sides of the window that no request may touch.
const MARGIN: usize = 1 << 16;

/// The memory that global addresses reach.
#[repr(align(65536))]
struct Window(UnsafeCell<[u8; WINDOW + 2 * MARGIN]>);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("execute: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let window = Box::new(Window(UnsafeCell::new([0; WINDOW + 2 * MARGIN])));
    let base = window.0.get().addr() as u64 + MARGIN as u64;
    let space = Space::new(vec![Region { start: base, end: base + WINDOW as u64, writable: true }]);
    let mut input = BufReader::with_capacity(1 << 20, io::stdin().lock());
    let mut output = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    output.write_all(b"EXECUTE1")?;
    let apertures = [SHARED_APERTURE, PRIVATE_APERTURE].map(|upper| u64::from(upper) << 32);
    for number in [CODE, base, WINDOW as u64, apertures[0], apertures[1]] {
        output.write_all(&number.to_le_bytes())?;
    }
    output.flush()?;
    let mut size = [0; 4];
    let mut request = Vec::new();
    let mut answer = Vec::new();
    loop {
        match input.read_exact(&mut size) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return output.flush(),
            other => other?,
        }
        request.resize(u32::from_le_bytes(size) as usize, 0);
        input.read_exact(&mut request)?;
        answer.clear();
        if let Err(text) = execute(&mut Fields { rest: &request }, &space, &window, &mut answer) {
            answer.clear();
            answer.push(1);
            answer.extend_from_slice(text.as_bytes());
        }
        output.write_all(&(answer.len() as u32).to_le_bytes())?;
        output.write_all(&answer)?;
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
}

/// Executes one request and appends the state afterwards to `answer`.
fn execute(request: &mut Fields, space: &Space, window: &Window, answer: &mut Vec<u8>) -> Result<(), String> {
    let [architecture, scc, vskip, code_size] = request.take::<4>()?;
    let processor = if architecture == 0 { Processor::Gfx942 } else { Processor::Gfx950 };
    let mode = request.word()?;
    let mut sizes = [0; 5];
    for size in &mut sizes {
        *size = request.word()? as usize;
    }
    let [vgprs, agprs, lds, memory, scratch] = sizes;
    let code = request.take::<16>()?;
    if vgprs > 256 || agprs > 256 || memory > WINDOW {
        return Err(format!("{vgprs} VGPRs, {agprs} AGPRs and {memory} bytes are too many"));
    }
    let mut scalars = [0; 128];
    for register in &mut scalars {
        *register = request.word()?;
    }
    let vectors = request.lanes(vgprs)?;
    let accumulators = request.lanes(agprs)?;
    let group = Group::new(space, request.bytes(lds)?.into(), [0; 3]);
    let global = request.bytes(memory)?;
    let mut wave = Wave::new(processor, &group, 0, 0);
    wave.s = scalars;
    wave.v[..vgprs].copy_from_slice(&vectors);
    wave.v[256..256 + agprs].copy_from_slice(&accumulators);
    wave.scc = scc != 0;
    wave.vskip = vskip != 0;
    wave.mode = Mode(mode);
    wave.scratch = request.bytes(LANES * scratch)?.to_vec();
    wave.scratch_size = scratch as u32;
    // SAFETY: the window belongs to this thread, and no reference to it is alive while a wave runs or here.
    unsafe { (&mut *window.0.get())[MARGIN..MARGIN + memory].copy_from_slice(global) };

    let inst = decode(processor, &code[..usize::from(code_size)]).map_err(|error| error.to_string())?;
    if inst.size != code_size {
        return Err(format!("the decoder takes {} bytes for an instruction of {code_size}", inst.size));
    }
    wave.pc = CODE + u64::from(inst.size);
    match (inst.execute)(&mut wave, &inst) {
        Flow::Fault => {
            let fault =
                wave.fault.as_ref().map_or_else(|| "no fault is given".to_owned(), |fault| fault.to_string());
            return Err(fault);
        }
        Flow::End => return Err("the wave has ended".to_owned()),
        Flow::Next | Flow::Jump | Flow::Barrier | Flow::Yield => {}
    }

    answer.extend_from_slice(&[0, u8::from(wave.scc), u8::from(wave.vskip)]);
    answer.push(wave.gpr_index.map_or(0xff, |index| index.enable));
    answer.extend_from_slice(&wave.mode.0.to_le_bytes());
    answer.extend_from_slice(&wave.pc.to_le_bytes());
    for register in wave.s {
        answer.extend_from_slice(&register.to_le_bytes());
    }
    for lanes in wave.v[..vgprs].iter().chain(&wave.v[256..256 + agprs]) {
        for lane in lanes.0 {
            answer.extend_from_slice(&lane.to_le_bytes());
        }
    }
    if let Some(other) = (vgprs..256).chain(256 + agprs..512).find(|&n| wave.v[n] != Lanes::ZERO) {
        return Err(format!("vector register {other} was written, which the instruction does not name"));
    }
    group.with_lds(|bytes| answer.extend_from_slice(bytes));
    // SAFETY: as above.
    answer.extend_from_slice(unsafe { &(&*window.0.get())[MARGIN..MARGIN + memory] });
    answer.extend_from_slice(&wave.scratch);
    Ok(())
}

/// The parts of a request, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn bytes(&mut self, size: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or("the request is too short")?;
        self.rest = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.bytes(N)?.try_into().map_err(|_| "the request is too short".to_owned())
    }

    fn word(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    fn lanes(&mut self, registers: usize) -> Result<Vec<Lanes>, String> {
        (0..registers)
            .map(|_| {
                let mut lanes = Lanes::ZERO;
                for lane in &mut lanes.0 {
                    *lane = self.word()?;
                }
                Ok(lanes)
            })
            .collect()
    }
}
