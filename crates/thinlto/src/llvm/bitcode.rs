//! The hash of a ThinLTO bitcode file: reads it, and gives a file another file's hash.
//!
//! The hash is the last record of the module's block (`MODULE_CODE_HASH`, llvm/lib/Bitcode/Writer/BitcodeWriter.cpp).
//! From the hash, the thin link makes the names of promoted locals (`x.llvm.<hash>`) and the keys of its cache. Nothing
//! checks the hash against the contents.
//!
//! The format, with a dump: `docs/formats/bitcode.md`.

use super::bitstream::{self, Block, BlockEntry, BlockReader, END_BLOCK, UNABBREV_RECORD};

/// The five words of a module's hash.
pub type Hash = [u32; 5];

pub(crate) const MODULE_BLOCK: u64 = 8;
const MODULE_CODE_HASH: u64 = 17;

/// The place of the hash of a file's only module, in bits from the file's start.
struct HashPlace {
    hash: Hash,
    /// The first bit of the record, including its abbreviation number.
    record: usize,
    /// The width of an abbreviation number in the module's block, in bits.
    width: u32,
    /// The word that holds the length of the module's block, in bytes from the start.
    length: usize,
    /// The first byte after the module's block.
    end: usize,
}

/// The hash of a bitcode file. `None` if the file has no hash, has more than one module, or is not understood.
pub fn hash(bytes: &[u8]) -> Option<Hash> {
    find(bytes).map(|place| place.hash)
}

/// The same file with another hash. `None` in the same cases as for [`hash`].
pub fn with_hash(bytes: &[u8], hash: Hash) -> Option<Vec<u8>> {
    let place = find(bytes)?;
    let mut bits = Tail::from(bytes, place.record);
    bits.put(UNABBREV_RECORD, place.width);
    bits.put_vbr6(MODULE_CODE_HASH);
    bits.put_vbr6(hash.len() as u64);
    for word in hash {
        bits.put_vbr6(u64::from(word));
    }
    bits.put(END_BLOCK, place.width);
    let mut result = bits.aligned();
    let words = u32::try_from((result.len() - place.length - 4) / 4).ok()?;
    result.get_mut(place.length..place.length + 4)?.copy_from_slice(&words.to_le_bytes());
    result.extend_from_slice(&bytes[place.end..]);
    Some(result)
}

fn find(bytes: &[u8]) -> Option<HashPlace> {
    in_module(bytes, module(bytes)?)
}

/// The block of a file's only module.
pub(crate) fn module(bytes: &[u8]) -> Option<Block> {
    let blocks = bitstream::blocks(bytes)?;
    let mut modules = blocks.iter().filter(|block| block.id == MODULE_BLOCK);
    let (module, None) = (modules.next()?, modules.next()) else { return None };
    Some(*module)
}

/// Searches the records of a module's block for the hash.
fn in_module(bytes: &[u8], block: Block) -> Option<HashPlace> {
    let mut entries = BlockReader::new(bytes, block);
    let mut last = None;
    while let Some(entry) = entries.next()? {
        last = match entry {
            BlockEntry::Record(record) if record.plain && record.code == MODULE_CODE_HASH => Some(record),
            _ => None,
        };
    }
    let record = last?;
    let mut hash = Hash::default();
    if record.operands.len() != hash.len() {
        return None;
    }
    for (word, operand) in hash.iter_mut().zip(&record.operands) {
        *word = u32::try_from(operand.value).ok()?;
    }
    Some(HashPlace { hash, record: record.at, width: block.width, length: block.start - 4, end: block.end })
}

/// Bits to append to the start of a file.
struct Tail {
    bytes: Vec<u8>,
    /// The end, in bits.
    end: usize,
}

impl Tail {
    fn from(bytes: &[u8], end: usize) -> Tail {
        let mut bytes = bytes[..end.div_ceil(8)].to_vec();
        if let (Some(last), rest @ 1..) = (bytes.last_mut(), end % 8) {
            *last &= (1 << rest) - 1;
        }
        Tail { bytes, end }
    }

    fn put(&mut self, value: u64, width: u32) {
        for n in 0..width {
            if self.end.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> n & 1) as u8) << (self.end % 8);
            }
            self.end += 1;
        }
    }

    fn put_vbr6(&mut self, mut value: u64) {
        while value >= 32 {
            self.put(value & 31 | 32, 6);
            value >>= 5;
        }
        self.put(value, 6);
    }

    fn aligned(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().div_ceil(4) * 4, 0);
        self.bytes
    }
}

/// Files for the tests of this folder.
#[cfg(test)]
pub(crate) mod testing {
    use super::bitstream::MAGIC;
    use super::{END_BLOCK, Tail, UNABBREV_RECORD};

    /// A plain record: its code and operands.
    pub(crate) type Plain<'r> = (u64, &'r [u64]);

    /// A file of blocks, each with its number and records.
    pub(crate) fn file(blocks: &[(u64, &[Plain<'_>])]) -> Vec<u8> {
        const WIDTH: u32 = 3;
        let mut bytes = MAGIC.to_vec();
        for (id, records) in blocks {
            let end = bytes.len() * 8;
            let mut bits = Tail::from(&bytes, end);
            // ENTER_SUBBLOCK, the block's number in groups of 8 bits, the width in groups of 4 bits, a word for the
            // length.
            bits.put(1, 2);
            bits.put(*id, 8);
            bits.put(u64::from(WIDTH), 4);
            let mut head = bits.aligned();
            let start = head.len() + 4;
            head.extend([0; 4]);
            let end = head.len() * 8;
            let mut bits = Tail::from(&head, end);
            for (code, operands) in *records {
                bits.put(UNABBREV_RECORD, WIDTH);
                bits.put_vbr6(*code);
                bits.put_vbr6(operands.len() as u64);
                operands.iter().for_each(|&operand| bits.put_vbr6(operand));
            }
            bits.put(END_BLOCK, WIDTH);
            bytes = bits.aligned();
            let words = ((bytes.len() - start) / 4) as u32;
            bytes[start - 4..start].copy_from_slice(&words.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use klpx_testkit::{command, run, said};

    use super::bitstream::MAGIC;
    use super::testing::{Plain, file};
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn run(&self, program: &str, words: &[&str]) {
            run(command(program).args(words).current_dir(&self.0));
        }

        fn bitcode(&self, source: &str, name: &str) -> Vec<u8> {
            std::fs::write(self.0.path().join("a.c"), source).expect("a file");
            self.run("clang-22", &["-O2", "-g", "-flto=thin", "-c", "a.c", "-o", name]);
            std::fs::read(self.0.path().join(name)).expect("bitcode")
        }

        /// The promoted names after a thin link with a unit that imports `entry`.
        fn promoted(&self, name: &str) -> String {
            let importer = "int entry(int); int holder(int n) { return entry(n) * 2; }";
            std::fs::write(self.0.path().join("b.c"), importer).expect("a file");
            self.run("clang-22", &["-O2", "-flto=thin", "-c", "b.c", "-o", "b.o"]);
            self.run("ld.lld-22", &["-r", name, "b.o", "-o", "linked.o"]);
            let text = said(command("llvm-nm-22").arg("linked.o").current_dir(&self.0));
            text.lines()
                .filter_map(|line| line.split(' ').next_back())
                .filter(|n| n.contains(".llvm."))
                .collect()
        }
    }

    const SOURCE: &str = "extern int sink(int);
        static __attribute__((noinline)) int helper(int n) { return sink(n) + sink(n + 1); }
        int entry(int n) { return helper(n + 1); }
        int other(int n) { return sink(n * 5) + helper(2); }";

    #[test]
    fn a_file_takes_the_hash_of_another_and_with_it_its_promoted_names() {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        let original = folder.bitcode(SOURCE, "original.o");
        let own = hash(&original).expect("a ThinLTO file has a hash");
        assert_eq!(with_hash(&original, own).expect("a file"), original, "its own hash changes nothing");
        for (n, by) in ["6", "7", "8", "1000"].into_iter().enumerate() {
            let name = format!("patched{n}.o");
            let patched = folder.bitcode(&SOURCE.replace("n * 5", &format!("n * {by}")), &name);
            assert_ne!(hash(&patched), Some(own));
            let frozen = with_hash(&patched, own).expect("a file");
            assert_eq!(hash(&frozen), Some(own));
            for extreme in [[0; 5], [u32::MAX; 5], [0, u32::MAX, 31, 32, 1 << 30]] {
                let other = with_hash(&frozen, extreme).expect("a file");
                assert_eq!(hash(&other), Some(extreme));
                assert_eq!(with_hash(&other, own).as_ref(), Some(&frozen), "there and back");
            }
            std::fs::write(folder.0.path().join("frozen.o"), &frozen).expect("a file");
            assert_ne!(folder.promoted(&name), folder.promoted("original.o"));
            assert_eq!(folder.promoted("frozen.o"), folder.promoted("original.o"));
        }
    }

    #[test]
    fn what_is_no_bitcode_or_damaged_has_no_hash() {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        let original = folder.bitcode(SOURCE, "original.o");
        for bytes in [&b""[..], b"BC", b"\x7fELF", &MAGIC, &[MAGIC, [0xff; 4]].concat()] {
            assert_eq!(hash(bytes), None);
        }
        for end in (0..original.len()).step_by(13) {
            hash(&original[..end]);
            let mut damaged = original.clone();
            damaged[end] ^= 0x55;
            if let Some(found) = hash(&damaged) {
                assert!(with_hash(&damaged, found).is_some());
            }
        }
    }

    #[test]
    fn a_hash_with_an_abbreviation_is_not_one_that_can_be_replaced() {
        let with = |abbreviated: bool| {
            let mut bits = Tail::from(&MAGIC, 32);
            for (value, width) in [(1, 2), (MODULE_BLOCK, 8), (3, 4)] {
                bits.put(value, width);
            }
            let mut file = bits.aligned();
            file.extend([0; 4]);
            let start = file.len();
            let mut bits = Tail::from(&file, start * 8);
            // DEFINE_ABBREV: the literal of a hash, and an array of numbers of 32 bits.
            for (value, width) in
                [(2, 3), (3, 5), (1, 1), (MODULE_CODE_HASH, 8), (0, 1), (3, 3), (0, 1), (1, 3)]
            {
                bits.put(value, width);
            }
            // The array's elements: 32 takes two groups of 5 bits.
            bits.put(0b1_0000, 5);
            bits.put(0b0_0010, 5);
            if abbreviated {
                bits.put(4, 3);
            } else {
                bits.put(UNABBREV_RECORD, 3);
                bits.put_vbr6(MODULE_CODE_HASH);
            }
            bits.put_vbr6(5);
            for word in 1..=5 {
                match abbreviated {
                    true => bits.put(word, 32),
                    false => bits.put_vbr6(word),
                }
            }
            bits.put(END_BLOCK, 3);
            let mut file = bits.aligned();
            let words = ((file.len() - start) / 4) as u32;
            file[start - 4..start].copy_from_slice(&words.to_le_bytes());
            file
        };
        assert_eq!(hash(&with(false)), Some([1, 2, 3, 4, 5]));
        assert_eq!(hash(&with(true)), None);
    }

    #[test]
    fn a_hash_is_the_last_record_of_the_only_module() {
        const HASH: Plain<'_> = (MODULE_CODE_HASH, &[1, 2, 3, 4, 5]);
        let module = |records: &'static [Plain<'static>]| (MODULE_BLOCK, records);
        let good = file(&[(13, &[(1, &[7])]), module(&[(1, &[2]), HASH]), (23, &[])]);
        assert_eq!(hash(&good), Some([1, 2, 3, 4, 5]));
        let changed = with_hash(&good, [9, u32::MAX, 0, 31, 32]).expect("a file");
        assert_eq!(hash(&changed), Some([9, u32::MAX, 0, 31, 32]));
        assert_eq!(bitstream::blocks(&changed).map(|blocks| blocks.len()), Some(3));
        for bad in [
            file(&[module(&[HASH, (1, &[2])])]),
            file(&[module(&[(MODULE_CODE_HASH, &[1, 2, 3, 4])])]),
            file(&[module(&[(MODULE_CODE_HASH, &[1, 2, 3, 4, 5, 6])])]),
            file(&[module(&[(MODULE_CODE_HASH, &[1, 2, 3, 4, 1 << 32])])]),
            file(&[module(&[HASH]), module(&[HASH])]),
            file(&[(13, &[HASH])]),
        ] {
            assert_eq!(hash(&bad), None, "{bad:?}");
        }
        // A block whose length reaches beyond the file, and a record where only blocks are allowed.
        let mut long = good.clone();
        long[8] = 0xff;
        assert_eq!(hash(&long), None);
        let mut record = good.clone();
        record[4] |= 3;
        assert_eq!(hash(&record), None);
    }
}
