//! What a person reads of a file's contents.

use super::Inspected;
use crate::report::style::{self, paint};
use crate::report::text::table::{Cell, Column, Table};
use accuracy_core::codeobject::{Argument, CodeObject, Contents, Form, Kernel, Packing, Target};
use accuracy_core::symbol;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// An error, on standard error.
pub fn problem(message: &str) {
    crate::say!("{}: {message}", paint(style::BAD, "error"));
}

/// The code objects of each target, in the order of the targets.
fn by_target(contents: &Contents) -> BTreeMap<&Target, Vec<&CodeObject>> {
    let mut targets: BTreeMap<&Target, Vec<&CodeObject>> = BTreeMap::new();
    for code_object in &contents.code_objects {
        targets.entry(&code_object.target).or_default().push(code_object);
    }
    targets
}

/// The targets of a file's code objects, each once.
pub fn architectures(contents: &Contents) -> Vec<String> {
    by_target(contents).keys().map(|target| target.to_string()).collect()
}

/// In one line: for what a file has code.
pub fn holds(file: &Inspected) -> String {
    let Ok(read) = &file.outcome else { return String::new() };
    let targets = architectures(&read.contents);
    match (&read.contents.host, targets.is_empty()) {
        (_, false) => format!("it has {}", targets.join(", ")),
        (Some(host), true) => format!("it has code for the CPU ({}) only", host.machine),
        (None, true) => "it has none".into(),
    }
}

/// Everything about one file, with colours in it that the stream may take out again.
pub fn render(path: &Path, contents: &Contents, verbose: bool, width: Option<usize>) -> String {
    let mut text = String::new();
    let form = match contents.form {
        Form::Library => "kernel library",
        Form::CodeObject => "code object",
        Form::Bundle => "offload bundle",
        Form::Fatbin => "fatbin",
    };
    let _ = writeln!(text, "{}: {form}", paint(style::BOLD, path.display()));
    let targets = by_target(contents);
    for (target, code_objects) in &targets {
        let _ = writeln!(text, "  {}  {}", paint(style::GOOD, target), about(target, code_objects));
    }
    if targets.is_empty() {
        let _ = writeln!(text, "  {}  no code for a GPU", paint(style::WARN, "host"));
    }
    if let Some(host) = &contents.host {
        if let Some(soname) = &host.soname {
            list(&mut text, "soname", [soname.as_str()].into_iter(), width);
        }
        list(
            &mut text,
            &format!("launchers ({})", host.machine),
            host.launchers.iter().map(String::as_str),
            width,
        );
        if !host.other_functions.is_empty() {
            let _ = writeln!(text, "    and {} of C++ linkage", host.other_functions.len());
        }
        list(&mut text, "needs", host.needed.iter().map(String::as_str), width);
    }
    // Where several targets have kernels of the same interface, one table tells it.
    let mut interfaces: Vec<(Vec<&Target>, Vec<&Kernel>)> = Vec::new();
    for (target, code_objects) in &targets {
        let kernels: Vec<&Kernel> =
            code_objects.iter().filter_map(|c| c.kernels.as_deref()).flatten().collect();
        if kernels.is_empty() {
            continue;
        }
        match interfaces.iter_mut().find(|(_, known)| !verbose && same_interface(known, &kernels)) {
            Some((targets, _)) => targets.push(target),
            None => interfaces.push((vec![target], kernels)),
        }
    }
    for (targets, kernels) in &interfaces {
        let targets: Vec<String> = targets.iter().map(|t| t.to_string()).collect();
        let plural = if kernels.len() == 1 { "" } else { "s" };
        let heading = format!("{} kernel{plural} for {}", kernels.len(), targets.join(" and "));
        let _ = writeln!(text, "\n  {}", paint(style::BOLD, heading));
        text += &table(kernels, verbose).render(width);
        if verbose {
            for kernel in kernels {
                arguments(&mut text, kernel);
            }
        }
    }
    text
}

fn about(target: &Target, code_objects: &[&CodeObject]) -> String {
    let mut packings: Vec<Packing> = code_objects.iter().map(|c| c.packing).collect();
    packings.sort();
    packings.dedup();
    let packings: Vec<&str> = packings
        .iter()
        .map(|packing| match packing {
            Packing::Bare => "bare",
            Packing::Bundle => "in bundles",
            Packing::ZlibBundle => "in zlib bundles",
            Packing::ZstdBundle => "in zstd bundles",
            Packing::Fatbin => "in fatbins",
        })
        .collect();
    let what = match target {
        Target::Amd(_) | Target::Cubin { .. } => "code object",
        Target::Ptx { .. } => "PTX module",
        Target::Spirv => "SPIR-V module",
    };
    let mut versions: Vec<String> =
        code_objects.iter().filter_map(|c| c.version).map(|v| v.to_string()).collect();
    versions.sort();
    versions.dedup();
    let version =
        if versions.is_empty() { String::new() } else { format!(", version {}", versions.join(" and ")) };
    let size: u64 = code_objects.iter().map(|c| c.size).sum();
    let n = code_objects.len();
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural} {}{version}, {}", packings.join(" and "), bytes(size))
}

fn bytes(size: u64) -> String {
    match size {
        0..10_000 => format!("{size} bytes"),
        10_000..10_000_000 => format!("{} kB", size / 1000),
        _ => format!("{} MB", size / 1_000_000),
    }
}

/// `heading`, then words that wrap at the width.
fn list<'a>(text: &mut String, heading: &str, words: impl Iterator<Item = &'a str>, width: Option<usize>) {
    let _ = writeln!(text, "  {}", paint(style::DIM, heading));
    let mut column = 0;
    let mut any = false;
    for word in words {
        any = true;
        let length = word.chars().count();
        if column > 0 && width.is_some_and(|width| column + 2 + length > width) {
            text.push('\n');
            column = 0;
        }
        let gap = if column == 0 { 4 } else { 2 };
        *text += &" ".repeat(gap);
        *text += word;
        column += gap + length;
    }
    *text += if any { "\n" } else { "    none\n" };
}

fn same_interface(a: &[&Kernel], b: &[&Kernel]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.name == b.name && a.kernarg_size == b.kernarg_size && a.arguments == b.arguments)
}

fn table(kernels: &[&Kernel], verbose: bool) -> Table {
    let mut table = Table::default();
    let plain = |texts: Vec<String>| texts.into_iter().map(Cell::plain);
    let column = |of: &dyn Fn(&Kernel) -> String| plain(kernels.iter().map(|k| of(k)).collect());
    table.push(Column::left("kernel").shrinkable(), column(&|k| short_name(&k.name)));
    if verbose {
        for (order, name, value) in [
            (1, "LDS", (|k| k.shared_size) as fn(&Kernel) -> Option<u64>),
            (2, "scratch", |k| k.scratch_size),
            (3, "VGPR", |k| k.vgprs),
            (4, "AGPR", |k| k.agprs),
            (5, "SGPR", |k| k.sgprs),
            (6, "spills", |k| Some(k.vgpr_spills? + k.sgpr_spills?)),
            (7, "wave", |k| k.wavefront_size),
            (8, "threads", |k| k.max_workgroup_size),
        ] {
            let cells = column(&|k| value(k).map_or("-".into(), |value| value.to_string()));
            table.push(Column::right(name).dropped(order), cells);
        }
    }
    table.push(Column::right("bytes"), column(&|k| k.kernarg_size.to_string()));
    if !verbose {
        table.push(Column::left("arguments").shrinkable(), column(&|k| signature(k)));
    }
    table
}

/// The explicit arguments in short: a pointer, or the bytes of a value; and how many hidden ones follow.
fn signature(kernel: &Kernel) -> String {
    let mut words: Vec<String> = kernel.explicit().map(|a| [name_of(a), what(a)].concat()).collect();
    let hidden = kernel.arguments.len() - words.len();
    if words.is_empty() {
        words.push("none".into());
    }
    if hidden > 0 {
        words.push(format!("+{hidden} hidden"));
    }
    words.join(" ")
}

fn name_of(argument: &Argument) -> String {
    argument.name.as_ref().map_or(String::new(), |name| format!("{name}:"))
}

fn what(argument: &Argument) -> String {
    match argument.kind.as_str() {
        "global_buffer" => "ptr".into(),
        "by_value" => argument.size.to_string(),
        kind => format!("{kind}({})", argument.size),
    }
}

fn arguments(text: &mut String, kernel: &Kernel) {
    let _ = writeln!(text, "\n  {}", kernel.name);
    let heading = if kernel.arguments.is_empty() { "no arguments" } else { "offset bytes  kind" };
    let _ = writeln!(text, "   {}", paint(style::DIM, heading));
    for argument in &kernel.arguments {
        let Argument { offset, size, kind, name, .. } = argument;
        let name = name.as_deref().unwrap_or_default();
        let line = format!("    {offset:>5} {size:>5}  {kind}  {name}");
        let line = line.trim_end();
        let style = if argument.hidden { style::DIM } else { style::PLAIN };
        let _ = writeln!(text, "{}", paint(style, line));
    }
}

/// A C++ kernel by its name and template arguments, without namespaces that have no name and without its parameters.
pub fn short_name(name: &str) -> String {
    symbol::readable(name).replace("(anonymous namespace)::", "")
}
