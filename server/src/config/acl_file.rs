//! The file of permissions that `mqtt.acl_file` names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use inver_access::Rule;
use inver_access::dialect::mosquitto;

/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads the rules of the file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Rule>> {
    let place = || format!("mqtt.acl_file: {}", path.display());
    let mut text = String::new();
    let mut file = File::open(path).with_context(place)?.take(FILE_BYTES_MAX + 1);
    file.read_to_string(&mut text).with_context(place)?;
    anyhow::ensure!(text.len() as u64 <= FILE_BYTES_MAX, "{}: larger than {FILE_BYTES_MAX} bytes", place());
    mosquitto::rules(&text).with_context(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_the_file_and_the_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "user ann\ntopic read a/#\n").unwrap();
        assert_eq!(read(file.path()).unwrap().len(), 2);
        std::fs::write(file.path(), "user ann\ntopic most a/#\n").unwrap();
        let error = format!("{:#}", read(file.path()).unwrap_err());
        let path = file.path().display();
        assert_eq!(
            error,
            format!(
                "mqtt.acl_file: {path}: line 2: unknown access `most`: one of read, write, readwrite, deny"
            )
        );
        std::fs::write(file.path(), vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(format!("{:#}", read(file.path()).unwrap_err()).contains("larger than"));
        assert!(read(Path::new("/no/such/file")).is_err());
    }
}
