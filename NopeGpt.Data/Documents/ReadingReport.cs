using System.Text.Json.Serialization;

namespace NopeGpt.Data.Documents;

/// <summary>Something wrong in a source.</summary>
/// <param name="File">The file as it is named to people.</param>
/// <param name="Row">Where in it, from 1 (see <see cref="Record.Row"/>); null when the file as a whole is meant.</param>
/// <param name="Reason">What is wrong and what to do about it.</param>
public sealed record ReadingProblem(string File, long? Row, string Reason)
{
    public override string ToString() => Row is { } row ? $"{File}, row {row}: {Reason}" : $"{File}: {Reason}";
}

/// <summary>What was read and what could not be. One belongs to one thread; reports of parts are added up in the order of the parts.</summary>
public sealed class ReadingReport
{
    /// <summary>The number of problems that are kept with their place; the others are counted only.</summary>
    public const int KeptProblems = 20;

    private readonly List<ReadingProblem> _problems = [];

    /// <summary>Records handed over, the empty ones not among them.</summary>
    public long Records { get; set; }

    /// <summary>Bytes read, after decompression; of parquet the wanted columns only.</summary>
    public long Bytes { get; set; }

    /// <summary>Records that were there but could not be used: broken, too long, without the wanted text, or in a damaged part of a file.</summary>
    public long Bad { get; set; }

    /// <summary>Documents without any text; left out.</summary>
    public long Empty { get; set; }

    /// <summary>Records in which bytes that are not UTF-8, or halves of characters, were replaced by U+FFFD. They are among <see cref="Records"/>.</summary>
    public long Repaired { get; set; }

    /// <summary>Times a text document was longer than a record may be and was cut at a line end. Nothing of it is lost.</summary>
    public long Cuts { get; set; }

    /// <summary>Files that could not be read, or not to their end.</summary>
    public long BadFiles { get; set; }

    /// <summary>The first problems, in the order of the source.</summary>
    public IReadOnlyList<ReadingProblem> Problems
    {
        get => _problems;
        init => _problems = [.. value];
    }

    [JsonIgnore]
    public bool HasProblems => Bad + Empty + Repaired + Cuts + BadFiles > 0;

    /// <summary>Counts what the report of a later part counted.</summary>
    public void Add(ReadingReport part)
    {
        ArgumentNullException.ThrowIfNull(part);
        Records += part.Records;
        Bytes += part.Bytes;
        Bad += part.Bad;
        Empty += part.Empty;
        Repaired += part.Repaired;
        Cuts += part.Cuts;
        BadFiles += part.BadFiles;
        foreach (ReadingProblem problem in part._problems) Note(problem);
    }

    /// <summary>The counts and the first problems as a person wants to read them.</summary>
    public override string ToString()
    {
        List<string> parts = [$"{Records} records"];
        void Say(long count, string what)
        {
            if (count > 0) parts.Add($"{count} {what}");
        }
        Say(Bad, "bad");
        Say(Empty, "empty");
        Say(Repaired, "repaired (invalid characters replaced)");
        Say(Cuts, "cuts in long documents");
        Say(BadFiles, "files not read to their end");
        return string.Join(", ", parts) + string.Concat(_problems.Select(p => $"\n  {p}"));
    }

    /// <summary>Counts a record that cannot be used.</summary>
    public void AddBad(string file, long row, string reason, long count = 1)
    {
        Bad += count;
        Note(new(file, row, reason));
    }

    internal void AddBadFile(string file, string reason)
    {
        BadFiles++;
        Note(new(file, null, reason));
    }

    internal void AddEmpty(string file, long row)
    {
        Empty++;
        Note(new(file, row, "the document is empty; it is left out"));
    }

    internal void AddRepaired(string file, long row)
    {
        Repaired++;
        Note(new(file, row, "some of its characters are not valid and were replaced by U+FFFD; save the file as UTF-8 to keep them"));
    }

    internal void AddCut(string file, long row, long bytes)
    {
        Cuts++;
        Note(new(file, row, $"the document is longer than {bytes} bytes and was cut in parts; put lines of {TextFiles.Separator} between documents"));
    }

    private void Note(ReadingProblem problem)
    {
        if (_problems.Count < KeptProblems) _problems.Add(problem);
    }
}
