// Files of the models that the site carries.

const MODELS = new URL("../../live/models/", import.meta.url);

/** Files of a model by name -> a Map of their bytes, or a promise of it. */
export async function filesOf(model, names) {
  const bytes = async (name) => {
    const answer = await fetch(new URL(`${model}/${name}`, MODELS));
    if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status}).`);
    return [name, await answer.arrayBuffer()];
  };
  return new Map(await Promise.all(names.map(bytes)));
}
