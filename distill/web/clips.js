// The clips of the page: one transport a clip, a button a system, switching at the same position.
"use strict";

(() => {
  const { page, Player, buffers, factor, transport, ours, pressesButton } = listening;
  const section = document.getElementById("listen");
  const matching = document.getElementById("match-levels");
  const looping = document.getElementById("loop");
  const problem = document.getElementById("sound-problem");
  const clips = [...section.querySelectorAll(".clip")];
  const players = clips.map(build);
  let current = 0;

  function build(element, clip) {
    const cards = [...element.querySelectorAll(".card")];
    const cursors = cards.map((card) => card.querySelector(".cursor"));
    const player = new Player(() => {
      cards.forEach((card, place) => {
        const now = place === player.selected && (player.playing || player.position > 0);
        card.classList.toggle("now", now);
        card.querySelector(".system").setAttribute("aria-pressed", now);
      });
      step();
    });
    const step = transport(element.querySelector(".transport"), player, (part) => {
      for (const cursor of cursors) {
        cursor.hidden = !player.playing && !part;
        cursor.style.left = `${100 * part}%`;
      }
    });
    element.querySelector(".transport button").addEventListener("click", () => toggle(clip));
    cards.forEach((card, place) => {
      card.querySelector(".system").addEventListener("click", () => choose(clip, place));
      card.querySelector(".field").addEventListener("click", (event) => {
        const box = event.currentTarget.getBoundingClientRect();
        const part = (event.clientX - box.left) / box.width;
        choose(clip, place, true).then(() => player.seek(part * player.duration));
      });
    });
    return player;
  }

  const gains = (clip) => page.clips[clip].gains_db.map((gain) => (matching.checked ? factor(gain) : 1));

  // Loads a clip's sounds once, makes it the one that keys act on, and silences the others.
  async function ready(clip) {
    players.forEach((player, place) => place !== clip && player.playing && player.pause());
    current = clip;
    const player = players[clip];
    if (player.voices.length) return player;
    try {
      const found = await buffers(clip);
      const levels = gains(clip);
      if (!player.voices.length) player.load(found.map((buffer, place) => ({ buffer, gain: levels[place] })));
      player.loop = looping.checked;
      problem.textContent = "";
    } catch (error) {
      problem.textContent = error.message;
      throw error;
    }
    return player;
  }

  async function toggle(clip) {
    const player = await ready(clip);
    if (player.playing) player.pause();
    else if (clip === current) player.play(); // another may have been asked for while this one was read
  }

  // Switches to a system and plays it; the one that is heard already is paused, unless it is to be kept.
  async function choose(clip, place, keep = false) {
    const player = await ready(clip);
    if (player.playing && player.selected === place && !keep) {
      player.pause();
      return;
    }
    player.select(place);
    if (clip === current) player.play();
  }

  // By key: the focus goes along, or the space bar would press the button that was clicked before.
  function pick(place) {
    clips[current].querySelectorAll(".system")[place].focus({ preventScroll: true });
    choose(current, place, true);
  }

  function silence() {
    for (const player of players) if (player.playing) player.pause();
  }

  function jump(seconds) {
    const player = players[current];
    player.seek(player.position + seconds);
  }

  matching.addEventListener("change", () => {
    section.classList.toggle("unmatched", !matching.checked);
    players.forEach((player, clip) => {
      const levels = gains(clip);
      player.voices.forEach((voice, place) => { voice.gain = levels[place]; });
      player.refresh();
    });
  });
  looping.addEventListener("change", () => players.forEach((player) => player.setLoop(looping.checked)));

  document.addEventListener("keydown", (event) => {
    if (document.body.classList.contains("blind") || !ours(event) || pressesButton(event)) return;
    const key = event.key.toLowerCase();
    if (key === " ") toggle(current);
    else if (key >= "1" && key <= "9" && Number(key) <= page.systems.length) pick(Number(key) - 1);
    else if (key === "arrowleft") jump(-1);
    else if (key === "arrowright") jump(1);
    else if (key === "home" && players[current].position > 0) players[current].seek(0);
    else if (key === "m") matching.click();
    else if (key === "l") looping.click();
    else return;
    event.preventDefault();
  });

  listening.silence = silence;
})();
