using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Jobs.Commands.Runs;

/// <summary>Finds the runs that a person means, and shows runs.</summary>
/// <param name="Json">One JSON document on stdout instead of words.</param>
internal sealed record RunsTerminal(QueueClient Client, bool Json)
{
    private const int MostNamed = 10;

    /// <summary>The names of the HTTP interface.</summary>
    private static readonly JsonSerializerOptions Web = new(JsonSerializerDefaults.Web) { NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals, WriteIndented = true };

    public RunQueue Queue => Client.Queue;

    /// <exception cref="UserException">No run is meant, or more than one.</exception>
    public async Task<RunRow> FindAsync(string words, CancellationToken cancel) => (await FindAsync([words], cancel))[0];

    /// <summary>The runs, each once, in the order given.</summary>
    /// <exception cref="UserException">Of each that does not mean one run, a sentence.</exception>
    public async Task<IReadOnlyList<RunRow>> FindAsync(IReadOnlyList<string> words, CancellationToken cancel)
    {
        IReadOnlyList<RunRow> all = await Queue.ListAsync(cancel: cancel);
        List<RunRow> found = [];
        List<string> problems = [];
        foreach (string one in words)
        {
            if (Meant(one, [.. all.Select(r => (r.Id, r.Name))], $"in {Client.Store.Root}; `nopegpt runs list` lists them", problems) is { } id && found.All(r => r.Id != id)) found.Add(all.First(r => r.Id == id));
        }
        return problems.Count == 0 ? found : throw new UserException(string.Join('\n', problems));
    }

    /// <summary>The id that a person means, by an id, a name, or the beginning of an id; null with one problem more where none is, or several are.</summary>
    public static string? Meant(string words, IReadOnlyList<(string Id, string Name)> all, string place, List<string> problems)
    {
        if (all.FirstOrDefault(r => r.Id == words).Id is { } whole) return whole;
        (string Id, string Name)[] meant = [.. all.Where(r => r.Name.Length > 0 && r.Name == words)];
        if (meant.Length == 0 && words.Length > 0) meant = [.. all.Where(r => r.Id.StartsWith(words, StringComparison.Ordinal))];
        if (meant.Length == 1) return meant[0].Id;
        string shown = words.Length == 0 ? "(empty)" : PlainText.Of(words.Length <= 80 ? words : words[..77] + "...");
        string named = string.Join("; ", meant.Take(MostNamed).Select(r => $"{r.Id} {PlainText.Of(r.Name)}".TrimEnd())) + (meant.Length > MostNamed ? $"; and {meant.Length - MostNamed} more" : "");
        problems.Add(meant.Length == 0 ? $"RUN = {shown}: there is no such run {place}" : $"RUN = {shown}: it may be any of these: {named}; give more of the id");
        return null;
    }

    /// <summary>Shows runs as they are now, in the order of the ids.</summary>
    public async Task ShowAsync(IReadOnlyList<string> ids, CancellationToken cancel)
    {
        IReadOnlyList<RunRow> all = await Queue.ListAsync(cancel: cancel);
        Show([.. ids.Select(id => all.FirstOrDefault(r => r.Id == id)).OfType<RunRow>()], Places(all));
    }

    public void Show(IReadOnlyList<RunRow> rows, IReadOnlyDictionary<string, int> places)
    {
        foreach (RunRow row in rows) Client.Update(row);
        if (Json) Print(rows.Select(r => RunsDocument.Of(r, Client.Store, places)));
        else Console.Write(TextTable.Format(["id", "name", "kind", "state", "done", "place", "priority", "reason"], rows.Select(r => (IReadOnlyList<object?>)
            [r.Id, PlainText.Of(r.Name), RunsDocument.Word(r.Kind), r.State.ToString(), Done(r), places.TryGetValue(r.Id, out int place) ? place : null, r.Priority == 0 ? null : r.Priority, PlainText.Of(r.Reason ?? "")])));
    }

    /// <summary>The place of each waiting run, 1 for the next.</summary>
    public static IReadOnlyDictionary<string, int> Places(IReadOnlyList<RunRow> inOrder) =>
        inOrder.Where(r => r.State == RunState.Queued).Select((r, i) => (r.Id, Place: i + 1)).ToDictionary(r => r.Id, r => r.Place);

    public static string Done(RunRow row)
    {
        if (row.MaxSteps <= 0) return row.Step > 0 ? row.Step.ToString(CultureInfo.InvariantCulture) : "";
        long percent = row.State == RunState.Completed ? 100 : Math.Clamp(100 * row.Step / row.MaxSteps, 0, 100);
        return row.Kind.Trains() ? string.Create(CultureInfo.InvariantCulture, $"{percent} % of {row.MaxSteps}") : $"{percent} %";
    }

    public static void Print(object document) => Console.WriteLine(JsonSerializer.Serialize(document, Web));

    /// <summary>Says where a run that waits will wait for long.</summary>
    public void TellWhoRuns()
    {
        if (Client.IsUnattended) Console.Error.WriteLine($"no dashboard works on {Client.Store.Root}: what waits in the queue starts when one is started");
    }
}
