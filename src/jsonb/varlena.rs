//! PostgreSQL's values of varying length, uncompressed: a header of 4 bytes that says the length of the whole, then the data.

/// Bytes of the header of a varlena that is not packed (`VARHDRSZ`).
pub const HEADER: usize = 4;
/// Most bytes of a whole value.
const LARGEST: usize = 0x3FFF_FFFF;

/// Writes the header of a value whose data lies behind room for it. False when it is too large.
#[must_use]
pub fn close(value: &mut [u8]) -> bool {
    match (u32::try_from(value.len()), value.first_chunk_mut::<HEADER>()) {
        (Ok(size), Some(header)) if size as usize <= LARGEST => {
            *header = header_of(size);
            true
        }
        _ => false,
    }
}

/// The header of a value of this many bytes, header included.
pub fn header_of(size: u32) -> [u8; HEADER] {
    (size << 2).to_le_bytes()
}
