//! A tensor's values: a strided view into a mapped file, decoded by rows.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::Mmap;

use super::element::{Element, Real};
use super::error::{DumpError, Fault};
use super::zip::{self, Entry};
use crate::reference::Matrix;

/// Elements that a tensor may have which repeats its bytes (a dimension of stride zero): what it would decode to is
/// bounded by nothing else.
const MAX_REPEATED: usize = 1 << 28;

/// A file that is mapped while a tensor of it is open.
#[derive(Debug)]
pub(super) struct DataFile {
    pub path: PathBuf,
    len: u64,
    map: Mutex<Weak<Mmap>>,
}

impl DataFile {
    /// Maps the file for the first time.
    pub fn open(path: &Path) -> Result<(Arc<DataFile>, Arc<Mmap>), DumpError> {
        let map = Arc::new(map(path)?);
        let len = map.len() as u64;
        let file = DataFile { path: path.to_owned(), len, map: Mutex::new(Arc::downgrade(&map)) };
        Ok((Arc::new(file), map))
    }

    fn map(&self) -> Result<Arc<Mmap>, DumpError> {
        let mut slot = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = slot.upgrade() {
            return Ok(map);
        }
        let map = Arc::new(map(&self.path)?);
        let found = map.len() as u64;
        if found != self.len {
            return Err(DumpError::Changed { path: self.path.clone(), expected: self.len, found });
        }
        *slot = Arc::downgrade(&map);
        Ok(map)
    }
}

fn map(path: &Path) -> Result<Mmap, DumpError> {
    let io = |e| DumpError::io(path, e);
    if path.is_dir() {
        return Err(DumpError::Ambiguous {
            path: path.to_owned(),
            reason: "a folder where a file is due".into(),
        });
    }
    let file = crate::files::open(path).map_err(io)?;
    // SAFETY: the mapping is read-only and owned by the value returned. A file that another process truncates while
    // it is mapped would raise SIGBUS; that is documented on `DumpSet::open`.
    unsafe { Mmap::map(&file) }.map_err(io)
}

/// Where a tensor's storage is.
#[derive(Clone, Debug)]
pub(super) enum Storage {
    /// A range of the file's bytes.
    Plain { file: Arc<DataFile>, range: Range<u64> },
    /// What is behind the first `skip` bytes of a deflated entry.
    Deflated { file: Arc<DataFile>, entry: Entry, skip: u64 },
}

/// How elements lie in a storage: `offset + sum(index[i] * strides[i])`, counted in elements. Checked against the
/// storage's length when it is made.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub element: Element,
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

impl Layout {
    /// Row-major, from the start of `bytes` bytes.
    pub fn row_major(element: Element, shape: Vec<usize>, bytes: u64) -> Result<Layout, Fault> {
        let strides = row_major(&shape).ok_or_else(|| too_large(&shape))?;
        Layout::strided(element, shape, strides, 0, bytes)
    }

    /// The first index fastest, as numpy's `fortran_order`.
    pub fn column_major(element: Element, shape: Vec<usize>, bytes: u64) -> Result<Layout, Fault> {
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        let mut strides = row_major(&reversed).ok_or_else(|| too_large(&shape))?;
        strides.reverse();
        Layout::strided(element, shape, strides, 0, bytes)
    }

    pub fn strided(
        element: Element,
        shape: Vec<usize>,
        strides: Vec<usize>,
        offset: usize,
        bytes: u64,
    ) -> Result<Layout, Fault> {
        if shape.len() != strides.len() {
            return Err(Fault(format!("shape {shape:?} with strides {strides:?}")));
        }
        let bits = element.bits() as u64;
        let needed = if shape.contains(&0) {
            Some(0)
        } else {
            let last = shape.iter().zip(&strides).try_fold(offset, |at, (&size, &stride)| {
                (size - 1).checked_mul(stride).and_then(|n| at.checked_add(n))
            });
            last.and_then(|n| (n as u64).checked_add(1)?.checked_mul(bits)).map(|n| n.div_ceil(8))
        };
        if needed.is_none_or(|n| n > bytes) {
            let needed = needed.map_or("more bytes than there can be".to_owned(), |n| format!("{n} bytes"));
            return Err(Fault(format!(
                "shape {shape:?} of {element} with strides {strides:?} from element {offset} on needs {needed}, \
                 its storage has {bytes}"
            )));
        }
        let count =
            shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(|| too_large(&shape))?;
        if count as u64 > bytes * 8 / bits && count > MAX_REPEATED {
            return Err(Fault(format!(
                "shape {shape:?} repeats {bytes} bytes; the limit is {MAX_REPEATED} elements"
            )));
        }
        let layout = Layout { element, shape, strides, offset };
        if element == Element::E2M1 && !(layout.is_row_major() && offset == 0) {
            return Err("packed 4-bit elements in any other than row-major order".into());
        }
        Ok(layout)
    }

    fn is_row_major(&self) -> bool {
        let Some(expected) = row_major(&self.shape) else { return false };
        self.shape.iter().zip(&self.strides).zip(&expected).all(|((&d, s), e)| d <= 1 || s == e)
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

fn too_large(shape: &[usize]) -> Fault {
    Fault(format!("shape {shape:?} has more elements than can be counted"))
}

fn row_major(shape: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].checked_mul(shape[i].max(1))?;
    }
    Some(strides)
}

/// An open tensor: its file is mapped as long as this lives.
///
/// Rows are all dimensions but the last, columns the last one; a scalar has one row and one column.
#[derive(Debug)]
pub struct TensorData {
    bytes: Bytes,
    layout: Layout,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Arc<Mmap>, Range<usize>),
    Owned(Vec<u8>),
}

impl TensorData {
    pub(super) fn open(storage: &Storage, layout: &Layout) -> Result<TensorData, DumpError> {
        let bytes = match storage {
            Storage::Plain { file, range } => {
                Bytes::Mapped(file.map()?, range.start as usize..range.end as usize)
            }
            Storage::Deflated { file, entry, skip } => {
                let map = file.map()?;
                let mut bytes = zip::extract(&map, entry, entry.size)
                    .map_err(|e| e.in_file(&file.path, "zip archive"))?;
                bytes.drain(..*skip as usize);
                Bytes::Owned(bytes)
            }
        };
        Ok(TensorData { bytes, layout: layout.clone() })
    }

    pub fn element(&self) -> Element {
        self.layout.element
    }

    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// None where there is no element at all.
    pub fn rows(&self) -> usize {
        if self.layout.count() == 0 {
            return 0;
        }
        let leading = &self.layout.shape[..self.layout.shape.len().saturating_sub(1)];
        leading.iter().product()
    }

    pub fn cols(&self) -> usize {
        self.layout.shape.last().copied().unwrap_or(1)
    }

    fn storage(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map, range) => &map[range.clone()],
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Decodes rows into `out`, which is overwritten: `rows.len() * cols()` values, exact in f64 but for integers
    /// beyond 2^53.
    ///
    /// # Panics
    /// If `rows` ends beyond [`TensorData::rows`].
    pub fn read<T: Real>(&self, rows: Range<usize>, out: &mut Vec<T>) {
        assert!(rows.start <= rows.end && rows.end <= self.rows(), "rows {rows:?} of {}", self.rows());
        let cols = self.cols();
        out.clear();
        out.resize(rows.len() * cols, T::default());
        if out.is_empty() {
            return;
        }
        let (layout, bytes) = (&self.layout, self.storage());
        if layout.element == Element::E2M1 {
            let dtype = crate::dtype::DType::E2M1;
            for (i, value) in out.iter_mut().enumerate() {
                *value = T::from_f64(dtype.decode(dtype.code_at(bytes, rows.start * cols + i)));
            }
            return;
        }
        let size = layout.element.bits() / 8;
        if layout.is_row_major() {
            let first = layout.offset + rows.start * cols;
            layout.element.decode(&bytes[first * size..(first + out.len()) * size], 1, out);
            return;
        }
        let step = layout.strides.last().copied().unwrap_or(1);
        for (row, values) in rows.zip(out.chunks_exact_mut(cols)) {
            let first = self.row_start(row);
            layout.element.decode(&bytes[first * size..], step, values);
        }
    }

    /// Where a row's first element is, in elements of the storage.
    fn row_start(&self, row: usize) -> usize {
        let (mut rest, mut at) = (row, self.layout.offset);
        let leading = self.layout.shape.len().saturating_sub(1);
        for i in (0..leading).rev() {
            at += rest % self.layout.shape[i] * self.layout.strides[i];
            rest /= self.layout.shape[i];
        }
        at
    }

    /// Rows as a matrix.
    ///
    /// # Panics
    /// If `rows` ends beyond [`TensorData::rows`].
    pub fn matrix(&self, rows: Range<usize>) -> Matrix {
        let mut data = Vec::new();
        let count = rows.len();
        self.read(rows, &mut data);
        Matrix::new(count, self.cols(), data)
    }

    /// Consecutive ranges of rows of at most `values` values each, and at least one row.
    pub fn panels(&self, values: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.rows(), (values / self.cols().max(1)).max(1));
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }

    /// All values as integers; `None` where the elements are none.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let element = self.element();
        if !element.is_integer() {
            return None;
        }
        let bytes = self.raw();
        let value = |code: &[u8]| {
            let mut wide = [0; 8];
            wide[..code.len()].copy_from_slice(code);
            let value = i64::from_le_bytes(wide);
            let unused = 64 - element.bits() as u32;
            match element {
                Element::I8 | Element::I16 | Element::I32 => value << unused >> unused,
                _ => value,
            }
        };
        Some(bytes.chunks_exact(element.bits() / 8).map(value).collect())
    }

    /// The elements' bytes in row-major order; copied where they do not lie so.
    pub fn raw(&self) -> Cow<'_, [u8]> {
        let (layout, bytes) = (&self.layout, self.storage());
        if layout.count() == 0 {
            return Cow::Borrowed(&[]);
        }
        let size = layout.element.bits();
        if layout.is_row_major() {
            let first = layout.offset * size / 8;
            return Cow::Borrowed(&bytes[first..first + (layout.count() * size).div_ceil(8)]);
        }
        let (size, cols) = (size / 8, self.cols());
        let step = layout.strides.last().copied().unwrap_or(1);
        let mut out = Vec::with_capacity(layout.count() * size);
        for row in 0..self.rows() {
            let first = self.row_start(row);
            for column in 0..cols {
                let at = (first + column * step) * size;
                out.extend_from_slice(&bytes[at..at + size]);
            }
        }
        Cow::Owned(out)
    }
}
