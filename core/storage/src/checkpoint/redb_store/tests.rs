//! Damage of any block of a file is found, or the block holds nothing that is used.

use parking_lot::Mutex;

use super::*;

const CACHE_BYTES: usize = 1 << 20;
const BLOCK: usize = 512;

/// A file in memory that remembers which of its blocks were read.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<(Vec<u8>, Vec<bool>)>>);

impl Memory {
    fn of(bytes: Vec<u8>) -> Memory {
        let blocks = vec![false; bytes.len().div_ceil(BLOCK)];
        Memory(Arc::new(Mutex::new((bytes, blocks))))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().0.clone()
    }

    fn blocks_read(&self) -> Vec<bool> {
        self.0.lock().1.clone()
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let mut file = self.0.lock();
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(file.0.get(range.clone()).ok_or(io::ErrorKind::UnexpectedEof)?);
        file.1
            .iter_mut()
            .take(range.end.div_ceil(BLOCK))
            .skip(range.start / BLOCK)
            .for_each(|read| *read = true);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut file = self.0.lock();
        file.0.resize(len as usize, 0);
        file.1.resize((len as usize).div_ceil(BLOCK), false);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.lock().0[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

type Rows = Vec<(Space, Vec<u8>, Vec<u8>)>;

/// Verifies a file as `log verify` does; returns all that it holds.
fn verified(file: Memory) -> Result<Rows, CheckpointError> {
    let mut store = RedbStore::with(file, CACHE_BYTES, Arc::default())?;
    store.check_pages()?;
    store.check_rows()?;
    let mut rows = Rows::new();
    store.each_row(&mut |space, key, value| {
        rows.push((space, key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    for key in [Meta::KEY, COMMITS_KEY, TOTALS_KEY] {
        rows.push((Space::Meta, key.to_vec(), store.get(Space::Meta, key)?.unwrap_or_default().to_vec()));
    }
    Ok(rows)
}

/// A file with rows that were written, changed and removed by many commits.
fn filled() -> Memory {
    let file = Memory::default();
    let mut store = RedbStore::with(file.clone(), CACHE_BYTES, Arc::default()).unwrap();
    for commit in 0..12_u32 {
        let mut fill = |sink: &mut dyn Sink| {
            for number in 0..150_u32 {
                let key = [&[0, 7], (number * 7 % 400 + commit).to_be_bytes().as_slice()].concat();
                match (number + commit) % 5 {
                    0 => sink.remove(Space::State, &key)?,
                    _ => sink.put(Space::State, &key, &vec![commit as u8; 40 + number as usize])?,
                }
                sink.put(Space::Streams, &u64::from(number).to_be_bytes(), &commit.to_le_bytes())?;
            }
            Ok(())
        };
        store.commit(&mut fill).unwrap();
    }
    store.close();
    file
}

#[test]
fn damage_that_is_not_found_is_of_space_that_is_not_used() {
    let original = filled().bytes();
    let undamaged = Memory::of(original.clone());
    let expected = verified(undamaged.clone()).unwrap();
    let used = undamaged.blocks_read();
    assert!(expected.len() > 300);
    let (mut found, mut not_read, mut spare) = (0, 0, 0);
    for (block, is_used) in used.iter().enumerate() {
        let mut bytes = original.clone();
        let range = block * BLOCK..bytes.len().min((block + 1) * BLOCK);
        bytes[range].iter_mut().enumerate().for_each(|(at, byte)| *byte ^= (at * 31 + block) as u8 | 1);
        match verified(Memory::of(bytes)) {
            Err(_) => found += 1,
            Ok(rows) => {
                assert!(rows == expected, "block {block} is damaged, and what is read differs");
                not_read += u32::from(!is_used);
                // Of a page that is in use, behind its last row.
                spare += u32::from(*is_used);
            }
        }
    }
    println!("{found} found, {not_read} in pages that nothing reads, {spare} spare in pages in use");
    assert!(found > 0 && not_read > 0);
}
