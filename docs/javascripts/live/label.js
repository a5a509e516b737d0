// What a mistake is called, for pages that show one and do not load the catalogue.

/** `gpt2-mask-shows-the-next` as it is written on a switch. */
export const labelOf = ({ name }) => name.split("-").slice(1).join(" ");
