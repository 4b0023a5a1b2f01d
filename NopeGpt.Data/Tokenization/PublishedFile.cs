namespace NopeGpt.Data.Tokenization;

/// <summary>A published encoding that <see cref="Tokenizer.Load"/> takes by name, and the file that it needs.</summary>
/// <param name="Name">As in r50k_base.</param>
/// <param name="FileName">NAME.tiktoken.</param>
/// <param name="Bytes">Length of the file.</param>
/// <param name="Sha256">Of the file, in lower-case hexadecimal.</param>
/// <param name="VocabularySize">Number of ids, special tokens and free ids included.</param>
/// <param name="SpecialTokens">In the order of their ids.</param>
/// <param name="IsIncluded">It comes with the program and needs no file.</param>
public sealed record PublishedFile(string Name, string FileName, long Bytes, string Sha256, int VocabularySize, IReadOnlyList<string> SpecialTokens, bool IsIncluded)
{
    /// <summary>Of the tokenizer, as <see cref="Tokenizer.Hash"/>.</summary>
    public required string Hash { get; init; }

    /// <summary>All of them, the oldest first.</summary>
    public static IReadOnlyList<PublishedFile> All { get; } = [.. PublishedEncoding.All.Select(encoding => encoding.Describe())];

    /// <summary>The encoding of that name, or null.</summary>
    public static PublishedFile? Named(string name) => All.FirstOrDefault(file => file.Name == name);

    /// <summary>Where the file lies in the places, which are files or folders (searched with their subfolders of the first level); null where it is in none.
    /// It is recognised by its content.</summary>
    public string? Find(IReadOnlyList<string> places)
    {
        ArgumentNullException.ThrowIfNull(places);
        return PublishedEncoding.Find(Name)!.Search([], places)?.File;
    }
}
