//! Compressing a value before it reaches the server, exactly when the server would (access/heap/heaptoast.c) and into what it
//! would accept (access/common/toast_internals.c); and inflating what it stored.

use crate::error::Fault;
use crate::jsonb::pglz::{self, Pglz};

/// A tuple up to this many bytes is never toasted.
const THRESHOLD: usize = 2032;
/// A tuple's header without null bitmap, aligned.
const HEADER: usize = 24;
/// Header of a compressed value: its size, then the raw size and the method.
const COMPRESSED_HEADER: usize = 8;

/// A column's way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Pglz,
    Lz4,
}

/// What a column adds to a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// A value of fixed length and alignment.
    Fixed {
        length: usize,
        align: usize,
    },
    /// A text of this many bytes.
    Text(usize),
    Id,
    Resource,
}

/// When and how a table's resources are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// In the order of the table.
    pub columns: Vec<Column>,
    /// The table's `toast_tuple_target`.
    pub target: usize,
    pub method: Method,
}

/// Memory that compressing reuses.
#[derive(Debug, Default)]
pub struct Compressor {
    pglz: Pglz,
    out: Vec<u8>,
}

impl Rule {
    /// Bytes of a tuple's data with a raw resource whose varlena has `resource` bytes.
    fn data_size(&self, id: usize, resource: usize) -> usize {
        self.columns.iter().fold(0, |size, column| match *column {
            Column::Fixed { length, align } => size.next_multiple_of(align) + length,
            Column::Text(length) => add_varlena(size, length + 4),
            Column::Id => add_varlena(size, id + 4),
            Column::Resource => add_varlena(size, resource),
        })
    }

    fn applies(&self, id: usize, resource: usize) -> bool {
        let data = self.data_size(id, resource);
        HEADER + data > THRESHOLD && !self.fits(data)
    }

    fn fits(&self, data: usize) -> bool {
        data <= self.target.saturating_sub(HEADER)
    }

    /// Whether the server would leave the tuple as it is once the resource is compressed, or go on with it. In between, where
    /// it would have moved the value out of line and now does not look any more, it must compress by itself.
    fn settles(&self, id: usize, compressed: usize) -> bool {
        let data = self.data_size(id, compressed);
        self.fits(data) || HEADER + data > THRESHOLD
    }

    /// Replaces the varlena that begins at `start` in `values` by its compressed form, when the server would do so. `id` is the
    /// length of the row's id.
    pub fn apply(&self, compressor: &mut Compressor, id: usize, values: &mut Vec<u8>, start: usize) {
        let size = values.len() - start;
        if !self.applies(id, size) {
            return;
        }
        let raw = &values[start + 4..];
        let out = &mut compressor.out;
        out.clear();
        let done = match self.method {
            Method::Pglz => compressor.pglz.compress(raw, out),
            Method::Lz4 => lz4(raw, out),
        };
        // The server's own condition: a value that does not shrink would be read back as compressed when it is not.
        let compressed = out.len() + COMPRESSED_HEADER;
        if done && compressed < raw.len() - 2 && self.settles(id, compressed) {
            let method: u32 = match self.method {
                Method::Pglz => 0,
                Method::Lz4 => 1,
            };
            let info = raw.len() as u32 | (method << 30);
            let header = ((compressed as u32) << 2) | 2;
            values.truncate(start);
            values.extend_from_slice(&header.to_le_bytes());
            values.extend_from_slice(&info.to_ne_bytes());
            values.extend_from_slice(out);
        }
    }
}

/// Bytes of a whole varlena's data once inflated; what is no varlena has none.
pub fn inflated_size(value: &[u8]) -> usize {
    match value {
        [first, _, _, _, a, b, c, d, ..] if first & 3 == 2 => (u32::from_ne_bytes([*a, *b, *c, *d]) & 0x3fff_ffff) as usize,
        _ => value.len(),
    }
}

/// The data of a varlena that is whole (not out of line), inflated into `buffer` where it is compressed.
///
/// # Errors
/// `TooLarge` without memory; a fault for bytes that are not compressed as they say.
pub fn plain<'a>(value: &'a [u8], buffer: &'a mut Vec<u8>) -> Result<&'a [u8], Fault> {
    const BROKEN: Fault = Fault::Syntax("stored value is corrupt");
    let &first = value.first().ok_or(BROKEN)?;
    if first & 1 == 1 {
        return Ok(&value[1..]);
    }
    let (_, data) = value.split_first_chunk::<4>().ok_or(BROKEN)?;
    if first & 2 == 0 {
        return Ok(data);
    }
    let (info, data) = data.split_first_chunk::<4>().ok_or(BROKEN)?;
    let info = u32::from_ne_bytes(*info);
    let size = (info & 0x3fff_ffff) as usize;
    buffer.clear();
    let done = match info >> 30 {
        0 => pglz::decompress(data, size, buffer).is_some(),
        1 => {
            buffer.try_reserve(size).map_err(|_| Fault::TooLarge)?;
            buffer.resize(size, 0);
            lz4_flex::block::decompress_into(data, buffer).is_ok_and(|made| made == size)
        }
        _ => false,
    };
    if done { Ok(buffer) } else { Err(BROKEN) }
}

/// A varlena behind `size` bytes: short ones get a header of one byte and no alignment.
fn add_varlena(size: usize, length: usize) -> usize {
    const SHORT: usize = 127;
    let short = length - 3;
    if short <= SHORT { size + short } else { size.next_multiple_of(4) + length }
}

fn lz4(raw: &[u8], out: &mut Vec<u8>) -> bool {
    let most = lz4_flex::block::get_maximum_output_size(raw.len());
    if out.try_reserve(most).is_err() {
        return false;
    }
    out.resize(most, 0);
    match lz4_flex::block::compress_into(raw, out) {
        Ok(length) => {
            out.truncate(length);
            true
        }
        Err(_) => false,
    }
}
