namespace NopeGpt.Model.Storage.Layouts;

/// <summary>The models of other programs on disk: recognises, reads and writes them.</summary>
public static class HubLayout
{
    /// <summary>The layouts by name. All are read and written.</summary>
    public static IReadOnlyList<string> Names => ["nope-gpt", "gpt2", "lil-lm", "llama", "llama2.c"];

    /// <summary>Finds out what a folder or file holds, and checks config, names and shapes, without reading weights.</summary>
    /// <param name="path">A folder with a config.json and safetensors, a .safetensors file, its index, or a llama2.c .bin file.</param>
    /// <exception cref="InvalidDataException">Nothing is there, or it is of no known layout, or damaged, or does not fit; the message names file, field or tensor, reason and cure.</exception>
    public static RecognisedModel Recognise(string path) => throw new NotSupportedException(path);

    /// <summary>Writes a model so that other programs load it. The folder appears under its name complete and flushed, or not at all.</summary>
    /// <param name="layout">One of <see cref="Names"/>.</param>
    /// <param name="folder">A new or empty folder.</param>
    /// <exception cref="ArgumentException">The layout cannot express the model (each option in the way is named), or an option is wrong.</exception>
    /// <exception cref="IOException">The folder holds files, or cannot be written. Nothing is left behind.</exception>
    public static void Export(Decoder model, string layout, string folder, ExportOptions? options = null) => throw new NotSupportedException(layout);
}
