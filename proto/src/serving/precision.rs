//! With how many bits a model is served.

use std::io::{Error, ErrorKind, Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};

/// In the byte of the activations: another byte follows, with the bits of keys and values.
const KEY_VALUES_FOLLOW: u8 = 1 << 7;

/// Bits of the operands of products: 8, 14 or 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedPrecision {
    pub weights: u8,
    pub activations: u8,
    /// The codes of keys and values.
    pub key_values: u8,
}

impl ServedPrecision {
    /// The same bits for everything.
    pub const fn of(bits: u8) -> Self {
        Self {
            weights: bits,
            activations: bits,
            key_values: bits,
        }
    }
}

impl BorshSerialize for ServedPrecision {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        let activations = self.activations & !KEY_VALUES_FOLLOW;
        let Self {
            weights,
            key_values,
            ..
        } = self;
        match *key_values == activations {
            true => (weights, activations).serialize(writer),
            false => (weights, activations | KEY_VALUES_FOLLOW, key_values).serialize(writer),
        }
    }
}

impl BorshDeserialize for ServedPrecision {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (weights, byte) = <(u8, u8)>::deserialize_reader(reader)?;
        let activations = byte & !KEY_VALUES_FOLLOW;
        let key_values = match byte & KEY_VALUES_FOLLOW {
            0 => activations,
            _ => u8::deserialize_reader(reader)?,
        };
        if byte != activations && key_values == activations {
            let why = "bits of keys and values that are those of activations are not sent";
            return Err(Error::new(ErrorKind::InvalidData, why));
        }
        Ok(Self {
            weights,
            activations,
            key_values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has no bits of its own for keys and values is sent as before there were any.
    #[test]
    fn equal_bits_take_no_byte() {
        let mut precision = ServedPrecision::of(16);
        let bytes = |precision: &ServedPrecision| borsh::to_vec(precision).unwrap();
        assert_eq!(bytes(&precision), [16, 16]);
        precision.key_values = 8;
        assert_eq!(bytes(&precision), [16, 0x90, 8]);
        for precision in [precision, ServedPrecision::of(8)] {
            assert_eq!(borsh::from_slice(&bytes(&precision)).ok(), Some(precision));
        }
        let twice = borsh::from_slice::<ServedPrecision>(&[16, 0x90, 16]);
        assert!(twice.unwrap_err().to_string().contains("are not sent"));
    }
}
