using Microsoft.EntityFrameworkCore;
using Microsoft.EntityFrameworkCore.Diagnostics;
using Microsoft.EntityFrameworkCore.Storage.ValueConversion;

namespace NopeGpt.Jobs.Queue;

/// <summary>The table of runs, in SQLite or PostgreSQL: an index and a queue over the run folders, which are the truth.</summary>
public sealed class RunTable(DbContextOptions<RunTable> options) : DbContext(options)
{
    public DbSet<RunRow> Runs => Set<RunRow>();

    /// <summary>The names of the columns.</summary>
    internal static IReadOnlyList<string> Columns { get; } = Named();

    /// <summary>For so long the driver tries again while another connection keeps the database to itself.</summary>
    internal static TimeSpan Patience { get; } = TimeSpan.FromSeconds(60);

    internal static string ConnectionString(Store store) => $"Data Source={store.DatabasePath};Default Timeout={Patience.TotalSeconds:0}";

    /// <summary>Where the table lies.</summary>
    internal static void Configure(DbContextOptionsBuilder table, QueueOptions options, Store store)
    {
        if (options.IsShared) table.UseNpgsql(options.ConnectionString);
        else table.UseSqlite(ConnectionString(store));
        // The migrations are written by hand and keep no copy of the model to compare with: RunSchemaTests compares the tables.
        table.ConfigureWarnings(warnings => warnings.Ignore(RelationalEventId.PendingModelChangesWarning));
    }

    protected override void ConfigureConventions(ModelConfigurationBuilder configurationBuilder)
    {
        // SQLite has neither enums nor points in time: words to read, UTC ticks to compare; PostgreSQL gets the same, so that both are one table.
        configurationBuilder.Properties<Enum>().HaveConversion<string>();
        configurationBuilder.Properties<DateTimeOffset>().HaveConversion<TicksConverter>();
    }

    protected override void OnModelCreating(ModelBuilder modelBuilder)
    {
        modelBuilder.Entity<RunRow>(run =>
        {
            run.HasKey(r => r.Id);
            run.HasIndex(r => new { r.State, r.QueuePosition });
            run.Ignore(r => r.Predecessors);
            run.Ignore(r => r.TagList);
            run.Ignore(r => r.DeviceList);
            run.Ignore(r => r.Title);
            run.Ignore(r => r.Trainer);
        });
    }

    private static List<string> Named()
    {
        using RunTable table = new(new DbContextOptionsBuilder<RunTable>().UseSqlite().Options);
        return [.. table.Model.FindEntityType(typeof(RunRow))!.GetProperties().Select(p => p.GetColumnName())];
    }

    private sealed class TicksConverter() : ValueConverter<DateTimeOffset, long>(time => time.UtcTicks, ticks => new DateTimeOffset(ticks, TimeSpan.Zero));
}
