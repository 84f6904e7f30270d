//! Reading the flat plan. Every length is checked: a plan that lies ends the helper, nothing else.

use crate::kernel::{EPROTO, Result, Text};

/// A position in a buffer of operations.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    rest: &'a [u8],
}

impl<'a> Plan<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.rest.len() {
            return Err(EPROTO);
        }
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }
    pub fn u32(&mut self) -> Result<u32> {
        let raw = self.take(4)?;
        Ok(u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
    }
    pub fn u64(&mut self) -> Result<u64> {
        let low = self.u32()?;
        Ok(u64::from(low) | u64::from(self.u32()?) << 32)
    }
    /// Bytes and their NUL.
    pub fn text(&mut self) -> Result<Text<'a>> {
        let length = self.u32()? as usize;
        let raw = self.take(length.checked_add(1).ok_or(EPROTO)?)?;
        if raw[length] != 0 {
            return Err(EPROTO);
        }
        Ok(Text::new(raw))
    }
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        Ok(self.text()?.bytes())
    }
    /// What is left, as a plan of its own.
    pub fn nested(&mut self) -> Result<Plan<'a>> {
        Ok(Plan::new(self.bytes()?))
    }
}

/// A failure at a step, with what was being handled.
pub struct Failure {
    pub step: crate::step::Step,
    pub errno: i32,
    pub detail: [u8; crate::wire::DETAIL],
    pub length: usize,
}

impl Failure {
    pub fn new(step: crate::step::Step, errno: i32, detail: &[u8]) -> Self {
        let mut failure = Self { step, errno, detail: [0; crate::wire::DETAIL], length: 0 };
        failure.length = detail.len().min(crate::wire::DETAIL);
        failure.detail[..failure.length].copy_from_slice(&detail[..failure.length]);
        failure
    }
}

/// Names the step of a failed call.
pub trait At<T> {
    fn at(self, step: crate::step::Step, detail: &[u8]) -> core::result::Result<T, Failure>;
}

impl<T> At<T> for Result<T> {
    fn at(self, step: crate::step::Step, detail: &[u8]) -> core::result::Result<T, Failure> {
        self.map_err(|errno| Failure::new(step, errno, detail))
    }
}
