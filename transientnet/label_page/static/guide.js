// The field guide: what each class means, with simulated examples.

const CLASSES = {
  real: [
    "A source that changed: the difference has the shape of a star at the candidate’s place, bright or dark, wherever it stands.",
    ["supernova_on_galaxy", "asteroid", "variable_star", "supernova_faint"],
  ],
  bogus: [
    "No change in the sky: a residual of both signs beside a bright star, a spot sharper than any star, a bleeding column, a reflection, the edge of a chip, noise.",
    ["dipole", "cosmic_ray", "saturated_star"],
  ],
  hosted: [
    "On or beside a galaxy that the reference shows, its nucleus included: supernova, tidal disruption, active nucleus.",
    ["supernova_on_galaxy", "nuclear_agn"],
  ],
  variable: [
    "On a point source that the reference shows: a variable star or a quasar, brighter or fainter than before.",
    ["variable_star", "variable_star_fading"],
  ],
  orphan: ["The reference shows nothing there: an asteroid, or a transient without a visible host.", ["asteroid", "hostless"]],
};

export function fillGuide(box, names) {
  const known = names.filter((name) => name in CLASSES);
  const parts = known.map((name) => {
    const [text, examples] = CLASSES[name];
    const section = document.createElement("section");
    const [title, words, strips] = ["h3", "p", "div"].map((tag) => document.createElement(tag));
    title.textContent = name;
    words.textContent = text;
    strips.className = "strips";
    for (const example of examples) {
      const [figure, image, caption] = ["figure", "img", "figcaption"].map((tag) => document.createElement(tag));
      image.src = `guide-${example}.png`;
      image.alt = `science, reference and difference stamps: ${example.replaceAll("_", " ")}`;
      caption.textContent = example.replaceAll("_", " ");
      figure.append(image, caption);
      strips.append(figure);
    }
    section.append(title, words, strips);
    return section;
  });
  const last = document.createElement("p");
  const own = names.filter((name) => !known.includes(name));
  last.textContent =
    "Examples are simulated: science, reference, difference. " +
    (own.length ? `Of ${own.join(", ")} your team alone knows the definition: agree on it before you start. ` : "") +
    "Where you cannot tell, say unsure; a guess teaches the wrong thing.";
  box.replaceChildren(...parts, last);
}
