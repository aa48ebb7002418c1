//! TensorBoard's event files: TFRecord frames that hold `tensorflow.Event` messages.
//!
//! A frame is the length (u64), its checksum, the message, its checksum, all little-endian; a checksum is CRC-32C,
//! rotated and offset (`tensorflow/core/lib/io/record_writer.cc`, `lib/hash/crc32c.h`). Of `event.proto` and
//! `summary.proto` only the five fields below are needed, so the messages are written by hand.

use std::io::Write;

use anyhow::Result;

/// Wire types of Protocol Buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Writes the record that every event file begins with.
///
/// # Errors
/// When the writer fails.
pub(super) fn begin(writer: &mut dyn Write, wall_time: f64) -> Result<()> {
    let mut event = vec![];
    field(&mut event, 1, FIXED64, &wall_time.to_le_bytes());
    text(&mut event, 3, b"brain.Event:2");
    record(writer, &event)
}

/// Writes the scalars of one step; TensorBoard keeps them in single precision.
///
/// # Errors
/// When the writer fails.
pub(super) fn scalars(
    writer: &mut dyn Write,
    wall_time: f64,
    step: i64,
    scalars: &[(String, f64)],
) -> Result<()> {
    let mut summary = vec![];
    for (tag, value) in scalars {
        let mut one = vec![];
        text(&mut one, 1, tag.as_bytes());
        field(&mut one, 2, FIXED32, &(*value as f32).to_le_bytes());
        text(&mut summary, 1, &one);
    }
    let mut event = vec![];
    field(&mut event, 1, FIXED64, &wall_time.to_le_bytes());
    let mut number = vec![];
    // Negative numbers take the ten bytes of their two's complement.
    varint(&mut number, step as u64);
    field(&mut event, 2, VARINT, &number);
    text(&mut event, 5, &summary);
    record(writer, &event)
}

fn record(writer: &mut dyn Write, message: &[u8]) -> Result<()> {
    let length = (message.len() as u64).to_le_bytes();
    writer.write_all(&length)?;
    writer.write_all(&checksum(&length).to_le_bytes())?;
    writer.write_all(message)?;
    Ok(writer.write_all(&checksum(message).to_le_bytes())?)
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A field whose value is given as it stands on the wire.
fn field(message: &mut Vec<u8>, number: u64, wire_type: u64, value: &[u8]) {
    varint(message, number << 3 | wire_type);
    message.extend_from_slice(value);
}

/// A text or a message within a message: its length and its bytes.
fn text(message: &mut Vec<u8>, number: u64, value: &[u8]) {
    varint(message, number << 3 | BYTES);
    varint(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_format() {
        // RFC 3720, B.4: CRC-32C of 32 zero bytes is 0x8a9136aa; rotated by 15 and offset.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aau32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn a_scalar_is_framed_as_tensorflow_frames_it() {
        let mut file = vec![];
        scalars(&mut file, 1.0, 300, &[("kl".to_owned(), 0.5)]).unwrap();
        let message = [
            &[0x09][..],
            &1f64.to_le_bytes(),  // wall_time
            &[0x10, 0xac, 0x02],  // step 300
            &[0x2a, 11, 0x0a, 9], // summary { value {
            &[0x0a, 2],
            b"kl", // tag
            &[0x15],
            &0.5f32.to_le_bytes(), // simple_value
        ]
        .concat();
        assert_eq!(file[..8], (message.len() as u64).to_le_bytes());
        assert_eq!(file[12..file.len() - 4], message);
    }
}
