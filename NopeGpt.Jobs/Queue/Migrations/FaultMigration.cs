using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;

namespace NopeGpt.Jobs.Queue.Migrations;

/// <summary>Because of which run another one was cancelled.</summary>
[DbContext(typeof(RunTable))]
[Migration("20261123010000_Fault")]
internal sealed class FaultMigration : Migration
{
    protected override void Up(MigrationBuilder migrationBuilder) => migrationBuilder.AddColumn<string>("Fault", "Runs", defaultValue: "");

    protected override void Down(MigrationBuilder migrationBuilder) => migrationBuilder.DropColumn("Fault", "Runs");
}
