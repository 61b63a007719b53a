//! Which line of the source an instruction was compiled from: the line table of a code object (DWARF).

use gimli::{Dwarf, EndianSlice, LittleEndian, Reader, SectionId};
use object::{Object, ObjectSection};
use std::path::{Path, PathBuf};

/// The line table, sorted by offset.
pub struct Lines {
    files: Vec<String>,
    /// Where the compiler read each of them.
    paths: Vec<PathBuf>,
    rows: Vec<Row>,
}

struct Row {
    offset: u64,
    /// Index of the file; `None` where a sequence ends.
    file: Option<u32>,
    line: u32,
}

/// A table of more rows than this is damaged: one row for each dword of a segment is the most that there can be.
const ROWS: usize = 1 << 26;

impl Lines {
    /// Reads the line table of an ELF file. `None` where it has none, or a damaged one: it only adds to messages.
    pub fn read(file: &[u8]) -> Option<Lines> {
        let elf = object::File::parse(file).ok()?;
        let section = |id: SectionId| {
            let data = elf.section_by_name(id.name()).and_then(|s| s.data().ok()).unwrap_or_default();
            Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
        };
        let dwarf = Dwarf::load(section).ok()?;
        let mut lines = Lines { files: Vec::new(), paths: Vec::new(), rows: Vec::new() };
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            let Ok(unit) = dwarf.unit(header) else { continue };
            lines.add(&dwarf, &unit);
        }
        lines.rows.sort_by_key(|row| (row.offset, row.file.is_some()));
        (!lines.rows.is_empty()).then_some(lines)
    }

    fn add<R: Reader>(&mut self, dwarf: &Dwarf<R>, unit: &gimli::Unit<R>) -> Option<()> {
        let mut program = unit.line_program.clone()?.rows();
        let mut known = std::collections::HashMap::new();
        while let Ok(Some((header, row))) = program.next_row() {
            if self.rows.len() >= ROWS {
                return None;
            }
            let file = match row.end_sequence() {
                true => None,
                false => {
                    let index = row.file_index();
                    let number = *known.entry(index).or_insert_with(|| {
                        let name = header.file(index).and_then(|entry| {
                            let name = dwarf.attr_string(unit, entry.path_name()).ok()?;
                            Some(name.to_string_lossy().ok()?.into_owned())
                        });
                        let name = name.unwrap_or_else(|| "?".into());
                        self.paths.push(folder(dwarf, unit, header, index).join(&name));
                        self.files.push(name);
                        self.files.len() as u32 - 1
                    });
                    Some(number)
                }
            };
            let line = row.line().map_or(0, |line| line.get() as u32);
            self.rows.push(Row { offset: row.address(), file, line });
        }
        Some(())
    }

    /// File and line of the instruction at an offset of the file's addresses.
    pub fn find(&self, offset: u64) -> Option<(String, u32)> {
        let (file, line) = self.row(offset)?;
        Some((self.files[file].clone(), line))
    }

    /// Path of that file, as the compiler had it, and the line.
    pub fn path(&self, offset: u64) -> Option<(&Path, u32)> {
        let (file, line) = self.row(offset)?;
        Some((&self.paths[file], line))
    }

    fn row(&self, offset: u64) -> Option<(usize, u32)> {
        let after = self.rows.partition_point(|row| row.offset <= offset);
        let row = self.rows[..after].last()?;
        // Line 0 means code that no line stands for.
        let line = (row.line > 0).then_some(row.line)?;
        Some((row.file? as usize, line))
    }
}

/// The folder of a file of a line table.
fn folder<R: Reader>(
    dwarf: &Dwarf<R>,
    unit: &gimli::Unit<R>,
    header: &gimli::LineProgramHeader<R>,
    file: u64,
) -> PathBuf {
    let text = |reader: R| reader.to_string_lossy().ok().map(|text| PathBuf::from(text.into_owned()));
    let compiled_in = unit.comp_dir.clone().and_then(text).unwrap_or_default();
    let own = header.file(file).and_then(|entry| entry.directory(header));
    let own = own.and_then(|name| text(dwarf.attr_string(unit, name).ok()?));
    own.map_or(compiled_in.clone(), |own| compiled_in.join(own))
}
