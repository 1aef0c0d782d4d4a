// Lists of the bytes that reach a level, which a warp puts together in the order of their indices.

// Sums of a small number of every lane: over the lanes below this one, and over all. No lane waits for
// its neighbour's sum, as in `sum_before`.
struct Sums {
  int before, all;

  DEVICE Sums(int own, int lane) : before(0), all(0) {
    for (int bit = 0; __any_sync(ALL, own >> bit); bit++) {
      const u32 votes = __ballot_sync(ALL, own >> bit & 1);
      before += __popc(votes & ((1u << lane) - 1)) << bit, all += __popc(votes) << bit;
    }
  }
};

// An entry is an index and, in the highest byte, the byte there. The list counts all that is appended,
// and holds the first ROOM.
template <int ROOM>
struct List {
  u32* entries;
  int count;

  // Appends those of sixteen bytes, the first of which has the index `first`, that `hits` has a bit for:
  // those of a lane before those of the next one. Calls visit(byte, index) for each.
  template <class Visit>
  DEVICE void append(u32 hits, const u8* bytes, int first, int lane, Visit visit) {
    const Sums sums(__popc(hits), lane);
    int place = count + sums.before;
    count += sums.all;
    for (; hits; hits &= hits - 1, place++) {
      const int i = __ffs(hits) - 1, byte = bytes[i];
      if (place < ROOM) entries[place] = (u32)byte << 24 | (first + i);
      visit(byte, first + i);
    }
  }
};
