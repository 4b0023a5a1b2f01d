using System.Globalization;

namespace NopeGpt.Jobs.Training;

/// <summary>The lines that a trainer says: stamped, on its terminal or wherever its error stream goes, and in the run's trainer.log.</summary>
/// <param name="print">Shows a line; null writes it to the error stream.</param>
/// <param name="path">trainer.log where the error stream is not that file already; else null.</param>
internal sealed class RunLog(Action<string>? print, string? path)
{
    private readonly Lock _gate = new();

    public void Write(string line)
    {
        string stamped = $"{DateTimeOffset.UtcNow.ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture)} {line}";
        lock (_gate)
        {
            // The log's disk may be full, or nobody may read the terminal any more: the run and its exit code tell.
            try { (print ?? Console.Error.WriteLine)(stamped); }
            catch (IOException) { }
            try { if (path is not null) File.AppendAllText(path, stamped + "\n"); }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException) { }
        }
    }
}
