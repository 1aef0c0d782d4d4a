// Decoding in one kernel: which of a split's keys are kept, from lists of those that reach a level.
//
// While the other splits' counts are on their way, a row's helpers, warps that have nothing else to do,
// list the keys that reach a level which the row's is hardly ever below. Should it be, or a list have
// no room, the keys are listed again by the row's own level, in stretches that have room.

constexpr int HELPERS = (WARPS - ROWS) / ROWS;  // warps for each row beside the one that settles it
constexpr int LISTED = 2048;                    // entries of a helper's list
constexpr int STRETCH = HELPERS * LISTED;       // keys that have room in any case
constexpr int PACE = 512;                       // bytes that a warp looks at together, 16 a lane
constexpr int NO_LEVEL = 255;                   // above all levels

// Of which row a warp is which helper, if it is one.
struct Helper {
  int row, number;
  bool helps;

  DEVICE explicit Helper(int warp) {
    row = (warp - ROWS) % ROWS, number = (warp - ROWS) / ROWS;
    helps = warp >= ROWS && number < HELPERS;
  }
};

// A row's listed keys, with their bytes as of `keep_scores`.
struct Likely {
  union {
    u32 entries[HELPERS][LISTED];
    u32 picks[STRETCH];  // the kept keys, with their scores, take the place of entries from the front
  };
  int lists;  // that are in use: a few, unless there is work for more
  int count[HELPERS];
  int level[HELPERS];  // that the keys reach; NO_LEVEL if they had no room

  // By one helper: lists its share of the keys begin .. end - 1 of a split, of which key 0 is `first`.
  // Calls visit(byte, key) for each.
  template <class Visit>
  DEVICE void list(const u8* scores, int begin, int end, int first, int reach, int helper, int lane,
                   Visit visit) {
    const int length = max(share_of(end - begin, HELPERS), min(share_of(end - begin, FEW), LISTED));
    const int used = (end - begin + length - 1) / length;
    begin += helper * length, end = min(end, begin + length);
    List<LISTED> list = {entries[helper], 0};
#pragma unroll 1
    for (; begin < end; begin += PACE) {
      const int i = begin + 16 * lane;
      const u32 hits = i < end ? reaching(*(const uint4*)(scores + i), reach + 1) : 0;
      list.append(hits, scores + i, first + i, lane, visit);
    }
    if (lane) return;
    if (helper == 0) lists = used;
    count[helper] = min(list.count, LISTED);
    level[helper] = list.count > LISTED ? NO_LEVEL : reach;
  }

  // Whether all keys that reach the row's level have been listed.
  DEVICE bool complete(int row_level) const {
    bool complete = true;
#pragma unroll
    for (int i = 0; i < HELPERS; i++) complete &= row_level >= level[i];
    return complete;
  }

  // By one warp: picks the kept keys, of those at the row's level the first `room`, and returns how
  // many they are. `ties`: of the keys at the level that have been seen; is brought up to date.
  DEVICE int pick(int row_level, int room, int& ties, int lane) {
    int picked = 0;
#pragma unroll 1
    for (int helper = 0; helper < lists; helper++)
#pragma unroll 1
      for (int i = 0; i < count[helper]; i += 32 * TOGETHER)
        pick_some(entries[helper] + i, count[helper] - i, row_level + 1, room, ties, picked, lane);
    return picked;
  }

 private:
  static constexpr int FEW = 4;
  static constexpr int TOGETHER = 4;  // entries of a lane that are on their way at a time

  // Of some keys, in whole paces.
  DEVICE static int share_of(int keys, int helpers) {
    return (keys + helpers * PACE - 1) / (helpers * PACE) * PACE;
  }

  DEVICE void pick_some(const u32* from, int left, u32 level, int room, int& ties, int& picked,
                        int lane) {
    const u32 below = (1u << lane) - 1;
    u32 entry[TOGETHER];
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) entry[k] = 32 * k + lane < left ? from[32 * k + lane] : 0;
    __syncwarp();  // all lanes have read what picks take the place of
#pragma unroll
    for (int k = 0; k < TOGETHER; k++) {
      const u32 byte = entry[k] >> 24, tied = __ballot_sync(ALL, byte == level);
      const bool kept = byte > level || byte == level && ties + __popc(tied & below) < room;
      const u32 all_kept = __ballot_sync(ALL, kept);
      if (kept) picks[picked + __popc(all_kept & below)] = entry[k] - (1 << 24);
      ties += __popc(tied), picked += __popc(all_kept);
    }
  }
};
