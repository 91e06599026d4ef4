// Verifies what a log gives out, with none of its own code: checkpoints and tiles by the packages behind Go's checksum
// database (golang.org/x/mod/sumdb), proofs by those of certificate transparency (github.com/transparency-dev/merkle).
//
//	verifier checkpoint KEY FILE
//	verifier receipt KEY FILE
//	verifier tiles KEY FOLDER
//	verifier consistency KEY OLD NEW PROOF
//
// KEY is a verifier key, as `lukhas audit key` prints it. Exit code 1 and a line say what is wrong.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	said, err := run(os.Args[1:])
	if err != nil {
		fmt.Println("wrong:", err)
		os.Exit(1)
	}
	fmt.Println("right:", said)
}

func run(args []string) (string, error) {
	if len(args) < 3 {
		return "", errors.New("usage: verifier checkpoint|receipt|tiles|consistency KEY FILE...")
	}
	verifier, err := note.NewVerifier(args[1])
	if err != nil {
		return "", err
	}
	switch {
	case args[0] == "checkpoint":
		tree, err := openCheckpointFile(args[2], verifier)
		return fmt.Sprintf("size %d, root %v", tree.N, tree.Hash), err
	case args[0] == "receipt":
		return checkReceipt(args[2], verifier)
	case args[0] == "tiles":
		return checkTiles(args[2], verifier)
	case args[0] == "consistency" && len(args) == 5:
		return checkConsistency(args[2], args[3], args[4], verifier)
	}
	return "", errors.New("no such command")
}

func openCheckpointFile(path string, verifier note.Verifier) (tlog.Tree, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	return openCheckpoint(raw, verifier)
}

// openCheckpoint reads a signed note whose text is origin, size and root (https://c2sp.org/tlog-checkpoint).
func openCheckpoint(raw []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, errors.New("the note is no checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return tlog.Tree{}, errors.New("the checkpoint has no size")
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// checkReceipt checks a C2SP tlog-proof, whose record is its extra data, by both implementations.
func checkReceipt(path string, verifier note.Verifier) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	head, signed, found := bytes.Cut(raw, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" ||
		!strings.HasPrefix(lines[1], "extra ") || !strings.HasPrefix(lines[2], "index ") {
		return "", errors.New("this is no tlog-proof with a record")
	}
	record, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return "", err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return "", err
	}
	hashes := tlog.RecordProof{}
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return "", err
		}
		hashes = append(hashes, hash)
	}
	tree, err := openCheckpoint(signed, verifier)
	if err != nil {
		return "", err
	}
	leaf := tlog.RecordHash(record)
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, leaf); err != nil {
		return "", err
	}
	hasher := rfc6962.DefaultHasher
	err = proof.VerifyInclusion(
		hasher, uint64(index), uint64(tree.N), hasher.HashLeaf(record), toSlices(hashes), tree.Hash[:])
	return fmt.Sprintf("record %d of %d", index, tree.N), err
}

// checkTiles reads an exported tree through the client of Go's checksum database, which checks each tile that it reads
// against the checkpoint, and compares the records with their hashes where they are there too.
func checkTiles(folder string, verifier note.Verifier) (string, error) {
	tree, err := openCheckpointFile(filepath.Join(folder, "checkpoint"), verifier)
	if err != nil {
		return "", err
	}
	reader := tlog.TileHashReader(tree, folderTiles(folder))
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return "", err
	}
	if root != tree.Hash {
		return "", errors.New("the tiles are of another tree")
	}
	entries, err := readEntries(folder, tree.N)
	if err != nil {
		return "", err
	}
	for index := int64(0); index < tree.N; index++ {
		hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return "", fmt.Errorf("record %d: %w", index, err)
		}
		if entries != nil && tlog.RecordHash(entries[index]) != hashes[0] {
			return "", fmt.Errorf("record %d is not what was hashed", index)
		}
		if index%97 == 0 {
			path, err := tlog.ProveRecord(tree.N, index, reader)
			if err != nil {
				return "", err
			}
			if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, hashes[0]); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("%d hashes, %d records", tree.N, len(entries)), nil
}

// checkConsistency checks that one checkpoint's log continues another's, by what /api/v1/audit/consistency answered.
func checkConsistency(oldPath, newPath, proofPath string, verifier note.Verifier) (string, error) {
	oldTree, err := openCheckpointFile(oldPath, verifier)
	if err != nil {
		return "", err
	}
	newTree, err := openCheckpointFile(newPath, verifier)
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile(proofPath)
	if err != nil {
		return "", err
	}
	var answer struct{ Hashes []string }
	if err := json.Unmarshal(raw, &answer); err != nil {
		return "", err
	}
	hashes := tlog.TreeProof{}
	for _, text := range answer.Hashes {
		hash, err := tlog.ParseHash(text)
		if err != nil {
			return "", err
		}
		hashes = append(hashes, hash)
	}
	if err := tlog.CheckTree(hashes, newTree.N, newTree.Hash, oldTree.N, oldTree.Hash); err != nil {
		return "", err
	}
	err = proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(oldTree.N), uint64(newTree.N), toSlices(hashes),
		oldTree.Hash[:], newTree.Hash[:])
	return fmt.Sprintf("%d continues %d", newTree.N, oldTree.N), err
}

func toSlices(hashes []tlog.Hash) [][]byte {
	slices := [][]byte{}
	for _, hash := range hashes {
		slices = append(slices, append([]byte{}, hash[:]...))
	}
	return slices
}

func readEntries(folder string, size int64) ([][]byte, error) {
	if _, err := os.Stat(filepath.Join(folder, "tile", "entries")); err != nil {
		return nil, nil
	}
	entries := [][]byte{}
	for int64(len(entries)) < size {
		index, left := int64(len(entries))/256, size-int64(len(entries))
		raw, err := os.ReadFile(filepath.Join(folder, "tile", "entries", filepath.FromSlash(tilePath(index, left))))
		if err != nil {
			return nil, err
		}
		for len(raw) >= 2 {
			end := 2 + int(binary.BigEndian.Uint16(raw))
			if end > len(raw) {
				return nil, errors.New("a bundle of records is cut")
			}
			entries = append(entries, raw[2:end])
			raw = raw[end:]
		}
		if len(raw) != 0 || (left >= 256 && int64(len(entries)) != (index+1)*256) {
			return nil, errors.New("a bundle of records has another number of them")
		}
	}
	return entries, nil
}

// tilePath names the tile at an index in the layout of C2SP tlog-tiles; fewer than 256 hashes make it partial.
func tilePath(index, width int64) string {
	path := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		path = fmt.Sprintf("x%03d/%s", index%1000, path)
	}
	if width < 256 {
		path += fmt.Sprintf(".p/%d", width)
	}
	return path
}

type folderTiles string

func (folder folderTiles) Height() int { return 8 }

func (folder folderTiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func (folder folderTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	read := [][]byte{}
	for _, tile := range tiles {
		path := filepath.FromSlash(tilePath(tile.N, int64(tile.W)))
		raw, err := os.ReadFile(filepath.Join(string(folder), "tile", strconv.Itoa(tile.L), path))
		if err != nil {
			return nil, err
		}
		read = append(read, raw)
	}
	return read, nil
}
