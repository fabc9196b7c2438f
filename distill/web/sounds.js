// Sounds for a page opened from file://, and the player that switches between them at one position.
//
// From file:// neither Chromium nor Firefox lets a page read its neighbours: fetch and XMLHttpRequest are refused, and
// an <audio> element of another file is another origin, so that a MediaElementSource plays zeros. `volume` would work,
// but it only attenuates, and two <audio> elements never stay in step: a seek lands within tens of milliseconds. A
// classic <script src> is allowed to load from beside the page. So the WAV files also lie there as base64 in scripts,
// one a clip, loaded when the clip is first played; decoded, they are buffers that start on the same sample. Buffers
// have no name and no address, so that nothing in the document says what is playing in a blind test.
"use strict";

const listening = (() => {
  const page = JSON.parse(document.getElementById("listening-data").textContent);
  const KEPT = 4; // clips whose decoded sound stays in memory
  const FADE = 0.004; // seconds: time constant of a switch, too short to hear and too long to click
  const AHEAD = 0.03; // seconds between the order to play and the first sample, the same for all versions
  const waiting = new Map();
  const decoded = new Map();
  let context = null;

  function audio() {
    // Made on the first gesture: before it browsers refuse to make a sound.
    context = context || new AudioContext();
    if (context.state === "suspended") context.resume();
    return context;
  }

  function bytes(text) {
    const characters = atob(text);
    const found = new Uint8Array(characters.length);
    for (let i = 0; i < found.length; i++) found[i] = characters.charCodeAt(i);
    return found.buffer;
  }

  // Called by the script of a clip.
  function receive(clip, versions) {
    const request = waiting.get(clip);
    if (request) request.resolve(versions);
  }

  function fetchScript(clip) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      waiting.set(clip, { resolve });
      script.src = page.clips[clip].script;
      script.onerror = () => reject(new Error(`${script.src} could not be read: it belongs beside the page`));
      script.onload = () => script.remove();
      document.head.append(script);
    }).finally(() => waiting.delete(clip));
  }

  // The AudioBuffers of all systems' versions of a clip, in the order of page.systems.
  function buffers(clip) {
    if (!decoded.has(clip)) {
      const ready = fetchScript(clip).then((versions) =>
        // decodeAudioData resamples properly; a buffer at the file's own rate would be interpolated linearly.
        Promise.all(versions.map((text) => audio().decodeAudioData(bytes(text)))));
      ready.catch(() => decoded.delete(clip));
      decoded.set(clip, ready);
      if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
    }
    return decoded.get(clip);
  }

  const factor = (decibels) => 10 ** (decibels / 20);

  // Plays one of several voices { buffer, gain } of equal length; all run together and all but one are muted.
  class Player {
    constructor(changed) {
      this.changed = changed;
      this.voices = [];
      this.running = [];
      this.selected = 0;
      this.start = 0; // position at `began`, or where it stands
      this.began = 0;
      this.playing = false;
      this.loop = false;
    }

    get duration() {
      return this.voices.length ? Math.min(...this.voices.map((voice) => voice.buffer.duration)) : 0;
    }

    get position() {
      if (!this.playing) return this.start;
      const passed = this.start + Math.max(0, audio().currentTime - this.began);
      return this.loop ? passed % this.duration : Math.min(passed, this.duration);
    }

    load(voices) {
      this.stop();
      this.voices = voices;
      this.start = 0;
    }

    play() {
      if (this.playing || !this.voices.length) return;
      if (this.start >= this.duration - 0.01) this.start = 0;
      this.began = audio().currentTime + AHEAD;
      this.running = this.voices.map((voice, place) => {
        const { loop, duration: loopEnd } = this;
        const source = new AudioBufferSourceNode(context, { buffer: voice.buffer, loop, loopEnd });
        const level = new GainNode(context, { gain: place === this.selected ? voice.gain : 0 });
        source.connect(level).connect(context.destination);
        source.start(this.began, this.start);
        return { source, level };
      });
      const [first] = this.running;
      first.source.onended = () => {
        if (this.running[0] !== first) return;
        this.stop();
        this.start = 0;
        this.changed();
      };
      this.playing = true;
      this.changed();
    }

    stop() {
      const reached = this.position;
      const { running } = this;
      this.running = [];
      for (const { source, level } of running) {
        level.gain.setTargetAtTime(0, audio().currentTime, FADE);
        source.stop(audio().currentTime + 10 * FADE);
      }
      this.playing = false;
      this.start = reached;
    }

    pause() {
      this.stop();
      this.changed();
    }

    seek(seconds) {
      const { playing } = this;
      this.stop();
      this.start = Math.min(Math.max(0, seconds), this.duration);
      if (playing) this.play();
      this.changed();
    }

    select(place) {
      this.selected = place;
      this.refresh();
      this.changed();
    }

    setLoop(loop) {
      const { playing } = this;
      this.stop();
      this.loop = loop;
      if (playing) this.play();
    }

    // Makes the gains of the voices heard, after they or the selection changed.
    refresh() {
      this.running.forEach(({ level }, place) => {
        const gain = place === this.selected ? this.voices[place].gain : 0;
        level.gain.setTargetAtTime(gain, audio().currentTime, FADE);
      });
    }
  }

  // Keeps a transport (button, slider, clock) in step with a player; returns what to call after a change.
  function transport(element, player, moved = () => {}) {
    const [button, slider, clock] = ["button", "input", "output"].map((name) => element.querySelector(name));
    let scheduled = false;
    function show() {
      scheduled = false;
      const { position, duration, playing } = player;
      button.textContent = playing ? "Pause" : "Play";
      if (duration) slider.max = duration;
      slider.value = position;
      slider.setAttribute("aria-valuetext", `${position.toFixed(1)} seconds`);
      clock.textContent = `${position.toFixed(2)} / ${Number(slider.max).toFixed(2)} s`;
      moved(duration ? position / duration : 0);
      if (playing) later();
    }
    function later() {
      if (!scheduled) requestAnimationFrame(show);
      scheduled = true;
    }
    slider.addEventListener("input", () => player.seek(Number(slider.value)));
    return later;
  }

  // Keys belong to the page unless they are typed into a field, scroll a table, or are a browser's command.
  function ours(event) {
    const field = event.target.closest("input:not([type=checkbox]),select,.scroll");
    const slides = field && field.type === "range" && !event.key.startsWith("Arrow") && event.key !== "Home";
    return !event.ctrlKey && !event.metaKey && !event.altKey && (!field || slides);
  }

  // Space presses a focused button, and does so by itself.
  const pressesButton = (event) => event.key === " " && event.target.closest("button,a,summary,[type=checkbox]");

  return { page, receive, buffers, factor, Player, transport, ours, pressesButton, audio };
})();
