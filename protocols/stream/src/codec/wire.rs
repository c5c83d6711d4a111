//! The protocol's primitive types: big-endian integers, strings with a length of two bytes, byte strings and arrays with one
//! of four.

/// Bytes end too early, or are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame")]
pub struct Malformed;

/// Reads primitive types from the front of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// Eight bytes with a sign.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// A string; none for null.
    pub fn string(&mut self) -> Result<Option<&'a str>, Malformed> {
        match self.array().map(i16::from_be_bytes)? {
            -1 => Ok(None),
            length => {
                let bytes = self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
                std::str::from_utf8(bytes).map(Some).map_err(|_| Malformed)
            }
        }
    }

    /// A string that is not null.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        self.string()?.ok_or(Malformed)
    }

    /// Bytes with their length; none for null.
    pub fn bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.array().map(i32::from_be_bytes)? {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| Malformed)?).map(Some),
        }
    }

    /// The number of elements of an array, each of at least `element_bytes`: no more than there are bytes for.
    pub fn count(&mut self, element_bytes: usize) -> Result<usize, Malformed> {
        let count = match self.array().map(i32::from_be_bytes)? {
            -1 => 0,
            count => usize::try_from(count).map_err(|_| Malformed)?,
        };
        if count > self.0.len() / element_bytes { Err(Malformed) } else { Ok(count) }
    }

    /// An array of strings.
    pub fn texts(&mut self) -> Result<Vec<&'a str>, Malformed> {
        (0..self.count(2)?).map(|_| self.text()).collect()
    }

    /// A map of strings.
    pub fn map(&mut self) -> Result<Vec<(&'a str, &'a str)>, Malformed> {
        (0..self.count(4)?).map(|_| Ok((self.text()?, self.string()?.unwrap_or_default()))).collect()
    }
}

/// Appends a string; one that is too long for its length field is cut.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..bytes.len().min(i16::MAX as usize)).unwrap_or_default();
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends an array of strings.
pub fn put_strings(out: &mut Vec<u8>, texts: &[impl AsRef<str>]) {
    out.extend_from_slice(&(texts.len() as u32).to_be_bytes());
    texts.iter().for_each(|text| put_string(out, text.as_ref()));
}

/// Appends a map of strings.
pub fn put_map(out: &mut Vec<u8>, map: &[(&str, &str)]) {
    out.extend_from_slice(&(map.len() as u32).to_be_bytes());
    for (name, value) in map {
        put_string(out, name);
        put_string(out, value);
    }
}
