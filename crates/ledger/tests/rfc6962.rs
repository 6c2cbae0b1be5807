//! Checks the Merkle tree against the test vectors of Certificate Transparency, the reference
//! implementation of RFC 6962. Also checks the Merkle tree against a naive implementation of RFC
//! 6962, section 2.1, which computes hashes from the data of the leaves.

use ledger::merkle::{
    Frontier, Hash, ProofError, TileId, TileWriter, TreeError, consistency_proof, empty_root,
    inclusion_proof, node_hash, root_at, verify_consistency, verify_inclusion,
};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

type Tiles = BTreeMap<TileId, Vec<Hash>>;

fn leaf(data: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

fn hash(text: &str) -> Hash {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn hashes(texts: &[&str]) -> Vec<Hash> {
    texts.iter().map(|text| hash(text)).collect()
}

/// A literal implementation of RFC 6962, section 2.1, which caches the computed roots.
struct Oracle {
    data: Vec<Vec<u8>>,
    roots: RefCell<HashMap<(usize, usize), Hash>>,
}

impl Oracle {
    fn new(data: Vec<Vec<u8>>) -> Self {
        Oracle { data, roots: RefCell::default() }
    }

    /// Returns the largest power of two smaller than n.
    fn k(n: usize) -> usize {
        let mut k = 1;
        while 2 * k < n {
            k *= 2;
        }
        k
    }

    /// Returns MTH(D[start:end]) of RFC 6962.
    fn root(&self, start: usize, end: usize) -> Hash {
        if let Some(root) = self.roots.borrow().get(&(start, end)) {
            return *root;
        }
        let root = match end - start {
            0 => Sha256::digest([]).into(),
            1 => leaf(&self.data[start]),
            n => {
                let (left, right) =
                    (self.root(start, start + Self::k(n)), self.root(start + Self::k(n), end));
                Sha256::new()
                    .chain_update([1])
                    .chain_update(left)
                    .chain_update(right)
                    .finalize()
                    .into()
            }
        };
        self.roots.borrow_mut().insert((start, end), root);
        root
    }

    /// Returns PATH(m, D[start:end]) of RFC 6962, where m counts from start.
    fn path(&self, m: usize, start: usize, end: usize) -> Vec<Hash> {
        let n = end - start;
        if n == 1 {
            return Vec::new();
        }
        let k = Self::k(n);
        let (mut path, last) = if m < k {
            (self.path(m, start, start + k), self.root(start + k, end))
        } else {
            (self.path(m - k, start + k, end), self.root(start, start + k))
        };
        path.push(last);
        path
    }

    /// Returns SUBPROOF(m, D[start:end], b) of RFC 6962, where m counts from start. PROOF(m, D) is
    /// SUBPROOF(m, D, true).
    fn subproof(&self, m: usize, start: usize, end: usize, b: bool) -> Vec<Hash> {
        let n = end - start;
        if m == n {
            return if b { Vec::new() } else { vec![self.root(start, end)] };
        }
        let k = Self::k(n);
        let (mut proof, last) = if m <= k {
            (self.subproof(m, start, start + k, b), self.root(start + k, end))
        } else {
            (self.subproof(m - k, start + k, end, false), self.root(start, start + k))
        };
        proof.push(last);
        proof
    }
}

fn tree(data: &[Vec<u8>]) -> (TileWriter, Tiles) {
    let mut writer = TileWriter::new();
    data.iter().for_each(|data| writer.push(leaf(data)));
    let tiles = writer.take_changed().into_iter().collect();
    (writer, tiles)
}

const CT_LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

const CT_ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

const L1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const L4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const N23: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const N45: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
const N67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const N47: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";

/// The inclusion proofs of the test vectors. Each element contains the index of a leaf, the tree
/// size and the inclusion proof.
const CT_INCLUSION: [(u64, u64, &[&str]); 5] = [
    (0, 1, &[]),
    (0, 8, &[L1, N23, N47]),
    (5, 8, &[L4, N67, CT_ROOTS[4]]),
    (2, 3, &[CT_ROOTS[2]]),
    (1, 5, &[CT_ROOTS[1], N23, L4]),
];

/// The consistency proofs of the test vectors. Each element contains the size of the older tree,
/// the size of the newer tree and the consistency proof.
const CT_CONSISTENCY: [(u64, u64, &[&str]); 4] =
    [(1, 1, &[]), (1, 8, &[L1, N23, N47]), (6, 8, &[N45, N67, CT_ROOTS[4]]), (2, 5, &[N23, L4])];

#[test]
fn certificate_transparency_vectors() {
    let data: Vec<Vec<u8>> = CT_LEAVES.iter().map(|data| hex::decode(data).unwrap()).collect();
    let (_, tiles) = tree(&data);
    let oracle = Oracle::new(data.clone());
    assert_eq!(empty_root(), hash(CT_ROOTS[0]));
    for (size, root) in CT_ROOTS.iter().enumerate() {
        assert_eq!(root_at(&tiles, size as u64), Ok(hash(root)));
        assert_eq!(oracle.root(0, size), hash(root), "the oracle itself");
    }
    for (index, size, path) in CT_INCLUSION {
        assert_eq!(inclusion_proof(&tiles, index, size), Ok(hashes(path)));
        let (leaf, root) = (leaf(&data[index as usize]), hash(CT_ROOTS[size as usize]));
        assert_eq!(verify_inclusion(&leaf, index, size, &hashes(path), &root), Ok(()));
    }
    for (from, to, proof) in CT_CONSISTENCY {
        assert_eq!(consistency_proof(&tiles, from, to), Ok(hashes(proof)));
        let roots = [hash(CT_ROOTS[from as usize]), hash(CT_ROOTS[to as usize])];
        assert_eq!(verify_consistency(from, &roots[0], to, &roots[1], &hashes(proof)), Ok(()));
    }
}

/// Returns the tree sizes for which the tests check every proof.
fn sizes() -> impl Iterator<Item = usize> {
    (0..=100).chain([127, 128, 129, 255, 256, 257, 300])
}

fn sample(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| i.to_string().into_bytes()).collect()
}

#[test]
fn as_the_rfc_says_it() {
    let (_, tiles) = tree(&sample(300));
    let oracle = Oracle::new(sample(300));
    for size in sizes() {
        let (n, root) = (size as u64, oracle.root(0, size));
        let mut frontier = Frontier::new();
        oracle.data[..size].iter().for_each(|data| frontier.push(leaf(data)));
        assert_eq!(frontier.root(), root);
        assert_eq!(root_at(&tiles, n), Ok(root));
        for index in 0..size {
            let path = oracle.path(index, 0, size);
            assert_eq!(inclusion_proof(&tiles, index as u64, n).as_ref(), Ok(&path));
            assert_eq!(
                verify_inclusion(&leaf(&oracle.data[index]), index as u64, n, &path, &root),
                Ok(())
            );
        }
        for from in 0..=size {
            // RFC 6962 defines PROOF(m, D[n]) only for 0 < m < n. For m = 0, the test expects an
            // empty proof.
            let proof = if from == 0 { Vec::new() } else { oracle.subproof(from, 0, size, true) };
            assert_eq!(consistency_proof(&tiles, from as u64, n).as_ref(), Ok(&proof));
            assert_eq!(
                verify_consistency(from as u64, &oracle.root(0, from), n, &root, &proof),
                Ok(())
            );
        }
    }
}

#[test]
fn what_is_not_there() {
    let (_, tiles) = tree(&sample(5));
    assert_eq!(inclusion_proof(&tiles, 5, 5), Err(TreeError::NoSuchLeaf { index: 5, size: 5 }));
    assert_eq!(consistency_proof(&tiles, 5, 4), Err(TreeError::SizesReversed { from: 5, to: 4 }));
    let id = TileId { level: 0, index: 0 };
    assert_eq!(root_at(&tiles, 6), Err(TreeError::Missing { id, needed: 6, found: 5 }));
    assert_eq!(root_at(&Tiles::new(), 1), Err(TreeError::Missing { id, needed: 1, found: 0 }));
    let root = root_at(&tiles, 5).unwrap();
    assert_eq!(
        verify_inclusion(&leaf(b"0"), 5, 5, &[], &root),
        Err(ProofError::NoSuchLeaf { index: 5, size: 5 })
    );
    assert_eq!(
        verify_consistency(5, &root, 4, &root, &[]),
        Err(ProofError::WentBack { from: 5, to: 4 })
    );
    assert_eq!(
        TileWriter::resume(5, &[0; 32], &tiles).unwrap_err(),
        TreeError::Root { size: 5, expected: [0; 32], computed: root }
    );
    assert_ne!(node_hash(&root, &root), root);
}
