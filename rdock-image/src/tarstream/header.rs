//! One 512-byte header block (POSIX.1-1988 ustar and GNU's variant of it).
use super::TarError;

pub(super) const BLOCK: usize = 512;

pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK]);

impl Header<'_> {
    /// Checks the checksum; old writers summed signed bytes.
    pub(super) fn check(&self) -> Result<(), TarError> {
        let claimed = number(&self.0[148..156])?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (at, &byte) in self.0.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if claimed == unsigned || claimed == signed {
            Ok(())
        } else {
            Err(TarError::malformed("the header's checksum is wrong (not a tar?)"))
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        // GNU's magic ends in two blanks and keeps times where ustar has its prefix.
        let prefix = if &self.0[257..263] == b"ustar\0" {
            until_nul(&self.0[345..500])
        } else {
            &[]
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        let mut full = prefix.to_vec();
        full.push(b'/');
        full.extend_from_slice(name);
        full
    }

    pub(super) fn link(&self) -> &[u8] {
        until_nul(&self.0[157..257])
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        unsigned(&self.0[124..136], "size")
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        Ok((unsigned(&self.0[100..108], "mode")? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        unsigned(&self.0[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        unsigned(&self.0[116..124], "gid")
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        number(&self.0[136..148])
    }

    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        if &self.0[257..262] != b"ustar" || !matches!(self.kind(), b'3' | b'4') {
            return Ok((0, 0));
        }
        let part = |field| {
            u32::try_from(unsigned(field, "device number")?)
                .map_err(|_| TarError::malformed("a device number is too large"))
        };
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    pub(super) fn sparse_real_size(&self) -> Result<u64, TarError> {
        unsigned(&self.0[483..495], "real size")
    }
}

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

pub(super) fn unsigned(field: &[u8], what: &str) -> Result<u64, TarError> {
    u64::try_from(number(field)?).map_err(|_| TarError::malformed(format!("a negative {what}")))
}

/// Octal text, or GNU's base-256: the first bit set, then a big-endian two's complement number.
fn number(field: &[u8]) -> Result<i64, TarError> {
    let too_large = || TarError::malformed("a number is too large");
    if let Some(&first) = field.first()
        && first & 0x80 != 0
    {
        let mut value: i64 = if first & 0x40 != 0 { -1 } else { 0 };
        for (at, &byte) in field.iter().enumerate() {
            // The sign bit of the first byte is its second one.
            let byte = match at {
                0 if first & 0x40 != 0 => byte,
                0 => byte & 0x7f,
                _ => byte,
            };
            value = value.checked_mul(256).ok_or_else(too_large)? | i64::from(byte);
        }
        return Ok(value);
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let end = field.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    let mut value: i64 = 0;
    for &byte in &field[start..end] {
        if !matches!(byte, b'0'..=b'7') {
            return Err(TarError::malformed("a number field is not octal"));
        }
        value = value.checked_mul(8).ok_or_else(too_large)? + i64::from(byte - b'0');
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(&[0; 8]).unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert_eq!(
            number(&[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00
            ])
            .unwrap(),
            -256
        );
        assert!(number(b"0000 44\0").is_err());
        assert!(number(b"9\0").is_err());
        assert!(number(&[0xbf; 12]).is_err());
        assert!(
            number(&[
                0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
            ])
            .is_err()
        );
    }
}
