using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>What a data set is, in words.</summary>
internal static class DatasetWords
{
    private const int ShortCommit = 7;

    public static string Kind(DatasetKind kind) => kind switch { DatasetKind.Text => "text", DatasetKind.Chat => "conversations", _ => "preference pairs" };

    /// <summary>What one of its rows is called, several of them.</summary>
    public static string Rows(DatasetKind kind) => kind == DatasetKind.Text ? "documents" : "conversations";

    /// <summary>Where it came from, short: a name on the Hub with its commit, the name of a file.</summary>
    public static string Origin(DatasetInfo info)
    {
        if (info.Recipe.Source == PrepareConfig.Stories) return "stories made here";
        string address = info.Origin ?? info.Recipe.Source;
        if (!HubName.IsHub(address)) return Path.GetFileName(Path.TrimEndingDirectorySeparator(address)) is { Length: > 0 } name ? name : address;
        int commit = address.IndexOf('@', StringComparison.Ordinal);
        return commit < 0 || address.Length - commit - 1 <= ShortCommit ? address : address[..(commit + 1 + ShortCommit)];
    }

    public static string Tokenizer(DatasetInfo info) =>
        $"{(info.Recipe.Tokenizer.Length == 0 ? "own" : Path.GetFileName(Path.TrimEndingDirectorySeparator(info.Recipe.Tokenizer)))}, {Figures.Whole(info.VocabularySize)}";

    /// <summary>What was wrong in the source, in a line; null where nothing was.</summary>
    public static string? Warning(DatasetInfo info)
    {
        List<string> parts = [];
        void Say(long count, string one, string several)
        {
            if (count > 0) parts.Add($"{Figures.Whole(count)} {(count == 1 ? one : several)}");
        }
        if (info.Chat is { } chat) Say(chat.Dropped.Values.Sum(), "record left out", "records left out");
        if (info.Reading is { } reading)
        {
            Say(reading.Bad, "bad record", "bad records");
            Say(reading.Empty, "empty", "empty");
            Say(reading.Repaired, "repaired", "repaired");
            Say(reading.Cuts, "long document cut", "long documents cut");
            Say(reading.BadFiles, "file not read to its end", "files not read to their end");
        }
        return parts.Count == 0 ? null : string.Join(", ", parts);
    }

    public static string Dropped(DropReason reason) => reason switch
    {
        DropReason.BadRecord => "of another shape",
        DropReason.Empty => "without any text",
        DropReason.NoReply => "without a reply",
        DropReason.TooLong => "too long",
        DropReason.ReplyCut => "the reply did not fit",
        _ => "both replies the same",
    };
}
