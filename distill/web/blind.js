// The blind test. What is A, B and X is held in this closure alone: not in the document, and the sounds are nameless.
"use strict";

(() => {
  const { page, Player, buffers, factor, transport, ours, pressesButton } = listening;
  const part = (name) => document.getElementById(`blind-${name}`);
  const setup = part("setup");
  const VOICES = ["a", "b", "x"];
  const player = new Player(show);
  const step = transport(part("trial").querySelector(".transport"), player);
  let test = null;

  const abx = () => test.mode === "abx";
  const voices = () => (abx() ? VOICES : VOICES.slice(0, 2));

  function begin(event) {
    event.preventDefault();
    const form = new FormData(setup);
    const [first, second] = [form.get("first"), form.get("second")];
    const pairs = first === "any" ? everyPair() : [[Number(first), Number(second)]];
    if (pairs[0][0] === pairs[0][1]) {
      part("problem").textContent = "Choose two different systems.";
      return;
    }
    const typed = form.get("seed");
    const seed = typed === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(typed);
    const clips = form.get("clip") === "any" ? page.clips.map((_, clip) => clip) : [Number(form.get("clip"))];
    test = { mode: form.get("mode"), seed, seed_typed: typed !== "", count: Number(form.get("trials")), votes: [],
      started: new Date().toISOString() };
    test.plan = trials.plan({ mode: test.mode, pairs, clips, count: test.count, seed });
    listening.audio();
    listening.silence();
    document.body.classList.add("blind");
    part("problem").textContent = "";
    setup.hidden = true;
    part("result").hidden = true;
    part("trial").hidden = false;
    part("question").textContent = abx() ? "Which of A and B is X?" : "Which do you prefer?";
    part("x").hidden = !abx();
    for (const name of ["a", "b"]) {
      part(`is-${name}`).lastElementChild.textContent = `${abx() ? "X is" : "I prefer"} ${name.toUpperCase()}`;
    }
    next();
  }

  function everyPair() {
    const places = page.systems.map((_, place) => place);
    return places.flatMap((a) => places.slice(a + 1).map((b) => [a, b]));
  }

  async function next() {
    const { clip, a, b, x } = test.plan[test.votes.length];
    test.heard = null;
    player.load([]);
    show();
    part("trial").focus({ preventScroll: true }); // a button that is disabled while focused swallows keys
    let found;
    try {
      found = await buffers(clip);
    } catch (error) {
      close();
      part("problem").textContent = error.message;
      return;
    }
    const voice = (system) => ({ buffer: found[system], gain: factor(page.clips[clip].gains_db[system]) });
    player.load([a, b, ...(x ? [x === "a" ? a : b] : [])].map(voice));
    player.loop = true;
    test.heard = { a: 0, b: 0, x: 0 };
    test.since = performance.now();
    show();
  }

  function show() {
    if (!test) return;
    const ready = test.heard !== null;
    part("progress").textContent = `Trial ${Math.min(test.votes.length + 1, test.count)} of ${test.count}`;
    VOICES.forEach((name, place) => {
      part(name).disabled = !ready;
      part(name).setAttribute("aria-pressed", ready && player.playing && player.selected === place);
    });
    // An answer before everything was heard is a slip of the finger.
    const all = ready && voices().every((name) => test.heard[name]);
    for (const name of ["a", "b"]) part(`is-${name}`).disabled = !all;
    step();
  }

  function listen(name) {
    if (!test.heard || !voices().includes(name)) return;
    test.heard[name] += 1;
    player.select(VOICES.indexOf(name));
    player.play();
    show();
  }

  function answer(name) {
    if (part(`is-${name}`).disabled) return;
    const { clip, a, b, x } = test.plan[test.votes.length];
    const gains = page.clips[clip].gains_db;
    test.votes.push({
      trial: test.votes.length + 1,
      clip: page.clips[clip].name,
      a: page.systems[a],
      b: page.systems[b],
      x,
      answer: name,
      correct: x ? name === x : null,
      preferred: x ? null : page.systems[name === "a" ? a : b],
      response_ms: Math.round(performance.now() - test.since),
      heard_a: test.heard.a,
      heard_b: test.heard.b,
      heard_x: test.heard.x,
      gain_a_db: gains[a],
      gain_b_db: gains[b],
    });
    player.stop();
    if (test.votes.length === test.count) finish();
    else next();
  }

  function close() {
    player.load([]);
    document.body.classList.remove("blind");
    part("trial").hidden = true;
    setup.hidden = false;
  }

  function finish() {
    close();
    if (!test.votes.length) {
      test = null;
      return;
    }
    const { votes } = test;
    const rows = trials.byPair(votes);
    const correct = votes.filter((vote) => vote.correct).length;
    const p = trials.oneSided(correct, votes.length);
    part("score").textContent = abx()
      ? `${correct} of ${votes.length} correct, p = ${trials.probability(p)}`
      : rows.map((row) => `${row.pair[0]} ${row.first} : ${row.n - row.first} ${row.pair[1]}`).join("; ");
    const means = abx()
      ? "p: the chance of so many or more by guessing alone (exact binomial, one-sided)."
      : "p: the chance of so uneven a vote, either way, if neither were preferred (exact binomial, two-sided).";
    const early = votes.length < test.count
      ? ` Ended after ${votes.length} of ${test.count} trials: p holds only if the answers did not decide that.` : "";
    part("meaning").textContent = `${means} Seed ${test.seed}.${early}`;
    const counted = (row) => (abx() ? row.correct : `${row.first} : ${row.n - row.first}`);
    table(part("pairs"), ["pair", "trials", abx() ? "correct" : "votes", "p"],
      rows.map((row) => [row.pair.join(" / "), row.n, counted(row), trials.probability(row.p)]));
    table(part("votes"), ["trial", "clip", "A", "B", "vote", "seconds"],
      votes.map((vote) => [vote.trial, vote.clip, vote.a, vote.b, told(vote), (vote.response_ms / 1000).toFixed(1)]));
    test.result = { trials: votes.length, planned: test.count, pairs: rows };
    if (abx()) Object.assign(test.result, { correct, p_value: p });
    part("result").hidden = false;
    part("result").focus();
  }

  function told(vote) {
    if (!vote.x) return `preferred ${vote.preferred}`;
    return `X was ${vote.x.toUpperCase()}: ${vote.correct ? "right" : "wrong"}`;
  }

  function table(element, head, rows) {
    const line = (cells, tag) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => Object.assign(document.createElement(tag), { textContent: text })));
      return row;
    };
    element.tHead.replaceChildren(line(head, "th"));
    element.tBodies[0].replaceChildren(...rows.map((cells) => line(cells, "td")));
  }

  function save(kind) {
    const { plan, heard, since, count, ...kept } = test;
    const whole = { format: "blind listening test 1", page: page.title, matching: page.rule, generator: "mulberry32",
      ...kept };
    const text = kind === "csv" ? trials.csv(test.votes) : `${JSON.stringify(whole, null, 2)}\n`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
    link.download = `blind-test-${test.started.replaceAll(/[:.]/g, "-")}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function explain() {
    const form = new FormData(setup);
    const count = Number(form.get("trials"));
    const enough = trials.needed(count);
    setup.elements.second.disabled = form.get("first") === "any";
    part("needed").textContent = form.get("mode") !== "abx" ? ""
      : enough === null ? "Too few trials for p < 0.05." : `p < 0.05 takes at least ${enough} correct of ${count}.`;
  }

  setup.addEventListener("submit", begin);
  setup.addEventListener("input", explain);
  for (const name of VOICES) part(name).addEventListener("click", () => listen(name));
  for (const name of ["a", "b"]) part(`is-${name}`).addEventListener("click", () => answer(name));
  part("stop").addEventListener("click", finish);
  part("json").addEventListener("click", () => save("json"));
  part("csv").addEventListener("click", () => save("csv"));
  const toggle = () => (player.playing ? player.pause() : player.play());
  part("trial").querySelector(".transport button").addEventListener("click", toggle);
  document.addEventListener("keydown", (event) => {
    if (part("trial").hidden || !ours(event) || pressesButton(event)) return;
    const key = event.key.toLowerCase();
    if (VOICES.includes(key)) {
      part(key).focus({ preventScroll: true }); // as for the digits of the clips
      listen(key);
    }
    else if (key === "1" || key === "2") answer(key === "1" ? "a" : "b");
    else if (key === " ") toggle();
    else if (key === "home" || key === "arrowleft") player.seek(key === "home" ? 0 : player.position - 1);
    else return;
    event.preventDefault();
  });
  explain();
})();
