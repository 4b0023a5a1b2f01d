using System.CommandLine;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Commands;

/// <summary>How a command names a tokenizer.</summary>
/// <param name="Name">As it was given.</param>
/// <param name="Places">Where the file of a published encoding, or the tokenizer of that name, may lie.</param>
/// <param name="Download">Fetches the file of a published encoding that lies nowhere.</param>
internal sealed record TokenizerArgument(string Name, IReadOnlyList<string> Places, EncodingDownload? Download)
{
    public const string What = "a published encoding (r50k_base, p50k_base, cl100k_base, o200k_base), the name of one in the store, a folder, or a file: tokenizer.json, a .tiktoken file, "
        + "GPT-2's encoder.json or vocab.bpe, or llama2.c's tokenizer.bin.";

    public static Option<string?> Option(bool required = true, string also = "") => CommonOptions.Text("--tokenizer", "NAME_OR_DIR_OR_FILE", $"Tokenizer: {What}{also}", required: required);

    /// <summary>One of the words that an option was given for tokenizers; what is wrong is added to the problems.</summary>
    /// <param name="field">The option's name.</param>
    public static TokenizerArgument Read(Arguments arguments, string field, string words, Option<string?> tiktoken, Option<string?> root)
    {
        IReadOnlyList<string> places = arguments.TokenizerPlaces(tiktoken, root), names = Tokenizer.Names(places);
        if (!Path.Exists(words) && !names.Contains(words))
        {
            string? nearest = Configuration.Settings.Nearest(words, names);
            arguments.Add(field, words, $"there is no such tokenizer{(nearest is null ? "" : $" (did you mean {nearest}?)")}: name one of {string.Join(", ", names)}, or give the folder or the file of one");
        }
        return new(words, places, arguments.TokenizerDownload(root));
    }

    /// <summary>As the other, for an option with one; null where it is absent.</summary>
    public static TokenizerArgument? Read(Arguments arguments, Option<string?> option, Option<string?> tiktoken, Option<string?> root) =>
        arguments.Text(option) is { } words ? Read(arguments, option.Name, words, tiktoken, root) : null;

    /// <exception cref="FileNotFoundException">There is none, or the file of a published encoding cannot be had.</exception>
    /// <exception cref="InvalidDataException">It is damaged.</exception>
    public Tokenizer Load() => Tokenizer.Load(Name, Places, Download);
}
