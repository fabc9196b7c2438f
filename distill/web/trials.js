// Blind trials without a document: what is drawn, what it is worth, how it is written down.
"use strict";

const trials = (() => {
  // Mulberry32 (Tommy Ettinger): 32 bits of state, so that a seed of nine digits says it all.
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
    };
  }

  // pairs [[first, second]], clips [clip] -> [{ clip, a, b, x }], four draws a trial. x is "a", "b" or, where there is
  // no X, null. Every draw is independent: were X balanced, the last answers could be counted out.
  function plan({ mode, pairs, clips, count, seed }) {
    const draw = generator(seed);
    const one = (list) => list[Math.floor(draw() * list.length)];
    return Array.from({ length: count }, () => {
      const pair = one(pairs);
      const clip = one(clips);
      const [a, b] = draw() < 0.5 ? pair : [pair[1], pair[0]];
      const x = draw() < 0.5 ? "a" : "b";
      return { clip, a, b, x: mode === "abx" ? x : null };
    });
  }

  // P(at least c of n heads) of a fair coin, n <= 1000: sum over k >= c of C(n, k) / 2^n.
  function atLeast(c, n) {
    let term = 2 ** -n;
    let sum = c <= 0 ? term : 0;
    for (let k = 1; k <= n; k++) {
      term *= (n - k + 1) / k;
      if (k >= c) sum += term;
    }
    return Math.min(1, sum);
  }

  const oneSided = (correct, n) => atLeast(correct, n);
  const twoSided = (chosen, n) => Math.min(1, 2 * atLeast(Math.max(chosen, n - chosen), n));

  // The fewest correct answers of n that guessing reaches with p < level; null where even all correct do not.
  function needed(n, level = 0.05) {
    for (let c = 0; c <= n; c++) if (oneSided(c, n) < level) return c;
    return null;
  }

  // Votes { a, b, correct or preferred } -> a row for each pair, systems in order of the names.
  function byPair(votes) {
    const rows = new Map();
    for (const vote of votes) {
      const pair = [vote.a, vote.b].sort();
      const key = JSON.stringify(pair);
      if (!rows.has(key)) rows.set(key, { pair, n: 0, correct: 0, first: 0 });
      const row = rows.get(key);
      row.n += 1;
      row.correct += vote.correct ? 1 : 0;
      row.first += vote.preferred === pair[0] ? 1 : 0;
    }
    return [...rows.values()].map((row) => ({
      ...row, p: votes[0].x ? oneSided(row.correct, row.n) : twoSided(row.first, row.n),
    }));
  }

  const cell = (value) => `"${String(value === null || value === undefined ? "" : value).replaceAll('"', '""')}"`;
  const csv = (rows) => {
    const columns = Object.keys(rows[0] || {});
    return [columns, ...rows.map((row) => columns.map((name) => row[name]))]
      .map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  };

  const probability = (p) => (p >= 0.001 ? p.toPrecision(3) : p.toExponential(2));

  return { generator, plan, atLeast, oneSided, twoSided, needed, byPair, csv, probability };
})();
