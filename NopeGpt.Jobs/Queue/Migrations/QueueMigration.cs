using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;

namespace NopeGpt.Jobs.Queue.Migrations;

/// <summary>Order by priority, holding, devices, people's words, lineage and what is known of crashes.</summary>
[DbContext(typeof(RunTable))]
[Migration("20261123000000_Queue")]
internal sealed class QueueMigration : Migration
{
    private static readonly string[] Added = ["Priority", "Held", "NotBefore", "Tags", "Notes", "Group", "Parent", "ParentStep", "Device", "Devices", "Fruitless", "BestStep", "RetryAt", "SequenceBefore"];

    protected override void Up(MigrationBuilder migrationBuilder)
    {
        migrationBuilder.AddColumn<int>("Priority", "Runs", defaultValue: 0);
        migrationBuilder.AddColumn<bool>("Held", "Runs", defaultValue: false);
        migrationBuilder.AddColumn<long>("NotBefore", "Runs", nullable: true);
        migrationBuilder.AddColumn<string>("Tags", "Runs", defaultValue: "");
        migrationBuilder.AddColumn<string>("Notes", "Runs", defaultValue: "");
        migrationBuilder.AddColumn<string>("Group", "Runs", defaultValue: "");
        migrationBuilder.AddColumn<string>("Parent", "Runs", defaultValue: "");
        migrationBuilder.AddColumn<long>("ParentStep", "Runs", nullable: true);
        migrationBuilder.AddColumn<string>("Device", "Runs", defaultValue: "auto");
        migrationBuilder.AddColumn<string>("Devices", "Runs", defaultValue: "");
        migrationBuilder.AddColumn<int>("Fruitless", "Runs", defaultValue: 0);
        migrationBuilder.AddColumn<long>("BestStep", "Runs", defaultValue: -1L);
        migrationBuilder.AddColumn<long>("RetryAt", "Runs", nullable: true);
        migrationBuilder.AddColumn<long>("SequenceBefore", "Runs", defaultValue: 0L);
    }

    protected override void Down(MigrationBuilder migrationBuilder)
    {
        foreach (string column in Added) migrationBuilder.DropColumn(column, "Runs");
    }
}
