using Microsoft.EntityFrameworkCore;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>Tells that a storage root and a shared table belong together: the same mark stands in the root's queue.id and as the table's comment. A host whose shared
/// folder is not mounted would otherwise take every run for deleted.</summary>
internal static class RootMark
{
    /// <summary>Compares, and makes what is new; the caller sees to it that nobody else does so at the same time.</summary>
    /// <exception cref="UserException">The root is not the table's.</exception>
    public static async Task MatchAsync(RunTable table, Store store, CancellationToken cancel)
    {
        string path = Path.Combine(store.Root, "queue.id");
        string? here = File.Exists(path) ? (await File.ReadAllTextAsync(path, cancel).ConfigureAwait(false)).Trim() : null;
        string? there = await table.Database.SqlQueryRaw<string?>("SELECT obj_description('\"Runs\"'::regclass, 'pg_class') AS \"Value\"").SingleAsync(cancel).ConfigureAwait(false);
        if (there is null)
        {
            if (!Guid.TryParseExact(here, "N", out Guid mark))
            {
                mark = Guid.NewGuid();
                string aside = $"{path}.{Environment.ProcessId}.new";
                await File.WriteAllTextAsync(aside, mark.ToString("N") + "\n", cancel).ConfigureAwait(false);
                File.Move(aside, path, overwrite: true);
            }
#pragma warning disable EF1002 // A comment takes no parameter; what is put in has 32 hexadecimal digits.
            await table.Database.ExecuteSqlRawAsync($"COMMENT ON TABLE \"Runs\" IS '{mark:N}'", cancel).ConfigureAwait(false);
#pragma warning restore EF1002
        }
        else if (there != here)
        {
            throw new UserException($"the storage root {store.Root} is not the one of the queue in Jobs:ConnectionString (its queue.id {(here is null ? "is missing" : "is another")}): "
                + "mount the shared folder there, name it with --root or Storage:Root, or use another database");
        }
    }
}
