namespace NopeGpt.Data.Documents;

/// <summary>Documents from one file of the user's, read strictly: what is wrong with it is an error and not a count.</summary>
public static class TextFiles
{
    /// <summary>The line that separates documents in a .txt file.</summary>
    public const string Separator = "<|endoftext|>";

    /// <summary>The column that the documents of a .txt file are in.</summary>
    public const string Column = "text";

    /// <summary>Streams the documents of a file that a <see cref="Source"/> can read, from its column "text": those of a .txt file (split at lines that are
    /// exactly &lt;|endoftext|&gt;; a file without one is one document; line ends become \n) or of a .jsonl file (one {"text": ...} a line), for example.
    /// Empty documents are left out.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="ArgumentException">The file ends in something else.</exception>
    /// <exception cref="InvalidDataException">A record has no text or is damaged; the message names file and line.</exception>
    public static IEnumerable<string> Documents(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        SourceFile file = SourceFile.Local(path);
        return Documents(new Source(path, [file]), mayRepair: file.Format == FileFormat.Text);
    }

    private static IEnumerable<string> Documents(Source source, bool mayRepair)
    {
        ReadingReport report = new();
        foreach (string text in source.Texts(new() { Text = Column }, report))
        {
            Check(report, mayRepair);
            yield return text;
        }
        Check(report, mayRepair);
    }

    private static void Check(ReadingReport report, bool mayRepair)
    {
        bool wrong = report.Bad + report.BadFiles > 0 || (!mayRepair && report.Repaired > 0);
        if (!wrong) return;
        ReadingProblem problem = report.Problems[^1];
        throw new InvalidDataException(problem.Row is { } row ? $"{problem.File}, line {row}: {problem.Reason}" : problem.ToString());
    }
}
