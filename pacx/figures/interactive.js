// One slider over a sheet of pictures; where dots stand for the pictures, pointing at one moves it.
const imageSlider = (root) => {
  const labels = JSON.parse(root.dataset.labels);
  const across = Number(root.dataset.across);
  const down = Math.ceil(labels.length / across);
  const slider = root.querySelector("input");
  const sheet = root.querySelector(".image-slider img");
  const svg = root.querySelector("svg");
  const maps = [...root.querySelectorAll("svg [id^=dots]")].map((map) => {
    const dots = [...map.querySelectorAll("use")].map((d) => [d.x.baseVal.value, d.y.baseVal.value]);
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "here");
    ring.setAttribute("r", 7);
    svg.append(ring);
    return { dots, ring };
  });

  const show = () => {
    const k = Number(slider.value);
    const [column, row] = [k % across, Math.floor(k / across)];
    sheet.style.transform = `translate(${(-100 * column) / across}%, ${(-100 * row) / down}%)`;
    slider.setAttribute("aria-valuetext", labels[k]);
    root.querySelector("output").textContent = labels[k];
    for (const { dots, ring } of maps) {
      ring.setAttribute("cx", dots[k][0]);
      ring.setAttribute("cy", dots[k][1]);
    }
  };

  const point = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    let [nearest, least] = [null, 15];
    for (const { dots } of maps)
      dots.forEach(([x, y], k) => {
        const distance = Math.hypot(x - at.x, y - at.y);
        if (distance < least) [nearest, least] = [k, distance];
      });
    if (nearest !== null) {
      slider.value = nearest;
      show();
    }
  };

  slider.addEventListener("input", show);
  for (const kind of maps.length ? ["pointermove", "pointerdown"] : []) svg.addEventListener(kind, point);
  show();
};

// Both losses of a few pairs from their cosines, as `pacx.figures.interactive.losses` has them.
const losses = (root) => {
  const cosines = JSON.parse(root.dataset.cosines);
  const n = cosines.length;
  const inputs = Object.fromEntries([...root.querySelectorAll("input")].map((i) => [i.name, i]));
  const softmax = (values) => {
    const most = Math.max(...values);
    const powers = values.map((v) => Math.exp(v - most));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((p) => p / sum);
  };

  const show = () => {
    const temperature = 10 ** Number(inputs.temperature.value);
    const [lambdaC, lambdaR] = [Number(inputs.contrastive.value), Number(inputs.regression.value)];
    const told = { temperature: temperature.toFixed(2), contrastive: lambdaC.toFixed(1), regression: lambdaR.toFixed(1) };
    for (const [name, input] of Object.entries(inputs)) {
      input.setAttribute("aria-valuetext", told[name]);
      input.nextElementSibling.textContent = told[name];
    }
    const scaled = cosines.map((row) => row.map((c) => c / temperature));
    const picks = scaled.map(softmax);
    const picked = scaled.map((_, j) => softmax(scaled.map((row) => row[j])));
    let [contrastive, regression, pull] = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      contrastive -= (Math.log(picks[i][i]) + Math.log(picked[i][i])) / (2 * n);
      regression += (1 - cosines[i][i]) / n;
      pull += (lambdaC * (2 - picks[i][i] - picked[i][i])) / (2 * n * temperature);
    }
    const values = {
      contrastive: contrastive.toFixed(3),
      regression: regression.toFixed(3),
      total: (lambdaC * contrastive + lambdaR * regression).toFixed(3),
      share: pull + lambdaR > 0 ? `${Math.round((100 * pull) / (pull + lambdaR))}%` : "–",
    };
    for (const [name, value] of Object.entries(values))
      root.querySelector(`[data-value=${name}]`).textContent = value;
    root.querySelectorAll("tbody td").forEach((cell, k) => {
      const share = picks[Math.floor(k / n)][k % n];
      cell.textContent = `${Math.round(100 * share)}%`;
      cell.style.setProperty("--share", share);
    });
  };

  for (const input of Object.values(inputs)) input.addEventListener("input", show);
  show();
};
