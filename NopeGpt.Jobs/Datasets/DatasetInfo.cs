using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;

namespace NopeGpt.Jobs.Datasets;

/// <summary>What a prepared data set is: dataset.json beside its token file.</summary>
/// <param name="Documents">Or conversations.</param>
/// <param name="TextBytes">UTF-8 bytes of their text.</param>
/// <param name="SourceHash">SHA-256 of the source file, or of the names, sizes and times of several or very large ones; null for stories, which recipe and
/// seed decide, and for a data set of the Hub, whose commit does.</param>
/// <param name="Reading">What was wrong in the source; null in data sets that were made before this was kept.</param>
public sealed record DatasetInfo(PrepareConfig Recipe, ulong Seed, string RunId, long Documents, long TextBytes, long Tokens, int VocabularySize, string TokenizerHash, string? SourceHash, ReadingReport? Reading = null)
{
    /// <summary>Its name in the data set's folder.</summary>
    public const string FileName = "dataset.json";

    /// <summary>Plain text, conversations (with a .messages file beside the tokens), or pairs of conversations.</summary>
    public DatasetKind Kind { get; init; }

    /// <summary>Which column was which part, as "part=column,..."; empty for stories.</summary>
    public string Columns { get; init; } = "";

    /// <summary>The data set of the Hub with the commit it was made from; null for files.</summary>
    public string? Origin { get; init; }

    /// <summary>As the data set's card on the Hub names it; null where it names none.</summary>
    public string? Licence { get; init; }

    /// <summary>What became of the records of a chat or preference set; null for text.</summary>
    public ChatStatistics? Chat { get; init; }

    /// <summary>Lengths and repetitions; null in data sets that were made before this was kept.</summary>
    public TokenStatistics? Statistics { get; init; }

    public double BytesPerToken => Tokens == 0 ? 0 : (double)TextBytes / Tokens;

    /// <exception cref="InvalidDataException">It is not there or damaged; one sentence.</exception>
    public static DatasetInfo Read(string folder)
    {
        string path = Path.Combine(folder, FileName);
        try { return JsonSerializer.Deserialize<DatasetInfo>(File.ReadAllText(path), Configuration.Settings.Json) ?? throw new JsonException("it is empty"); }
        catch (Exception e) when (e is IOException or JsonException or UnauthorizedAccessException) { throw new InvalidDataException($"{path} cannot be read: {e.Message.TrimEnd('.')}; prepare the data set again.", e); }
    }

    public void Write(string folder) => JsonFile.Write(Path.Combine(folder, FileName), this);
}
