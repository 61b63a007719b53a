//! The number formats on standard streams, for comparison with other implementations:
//!
//! `codec decode FORMAT` writes the value of every code as little-endian f64 (formats of up to 16 bits).
//! `codec encode FORMAT saturate|special` reads little-endian f64 and writes the code of each as little-endian u32.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use accuracy_core::dtype::{DType, Overflow};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codec: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = Vec::new();
    match *args {
        ["decode", format] => {
            let dtype: DType = format.parse()?;
            if dtype.bits() > 16 {
                return Err(format!("{dtype} has too many codes to list").into());
            }
            for code in 0..1u32 << dtype.bits() {
                out.extend_from_slice(&dtype.decode(code).to_le_bytes());
            }
        }
        ["encode", format, mode @ ("saturate" | "special")] => {
            let dtype: DType = format.parse()?;
            let overflow = if mode == "saturate" { Overflow::Saturate } else { Overflow::Special };
            let mut input = Vec::new();
            io::stdin().read_to_end(&mut input)?;
            let (values, rest) = input.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(format!("{} bytes of input are no whole number of f64", input.len()).into());
            }
            for &value in values {
                out.extend_from_slice(&dtype.encode(f64::from_le_bytes(value), overflow).to_le_bytes());
            }
        }
        _ => return Err("usage: codec decode FORMAT | codec encode FORMAT saturate|special".into()),
    }
    io::stdout().write_all(&out)?;
    Ok(())
}
